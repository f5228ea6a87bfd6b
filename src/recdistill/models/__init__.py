"""Recommenders. A new model is one file and one line of ``MODELS``."""

from recdistill.models.base import Recommender
from recdistill.models.popularity import Popularity
from recdistill.models.sasrec import SASRec

MODELS: dict[str, type[Recommender]] = {model.name: model for model in (SASRec, Popularity)}
