"""Click models. A new one is one file and one line of ``CLICK_MODELS``."""

from recdistill.models.clicks.autoint import AutoInt
from recdistill.models.clicks.base import ClickModel
from recdistill.models.clicks.dcnv2 import DCNv2
from recdistill.models.clicks.deepfm import DeepFM
from recdistill.models.clicks.finalmlp import FinalMLP
from recdistill.models.clicks.fm import FactorizationMachine
from recdistill.models.clicks.lr import LogisticRegression
from recdistill.models.clicks.wukong import WuKong
from recdistill.models.clicks.xdeepfm import XDeepFM

CLICK_MODELS: dict[str, type[ClickModel]] = {
    model.name: model
    for model in (LogisticRegression, FactorizationMachine, DeepFM, DCNv2, AutoInt, XDeepFM, FinalMLP, WuKong)
}
"""Click models by name."""
