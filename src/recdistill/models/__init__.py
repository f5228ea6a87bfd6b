"""Recommenders. A new model is one file and one line of ``MODELS``."""

from recdistill.models.base import Recommender
from recdistill.models.bert4rec import BERT4Rec
from recdistill.models.gru4rec import GRU4Rec
from recdistill.models.narm import NARM
from recdistill.models.popularity import Popularity
from recdistill.models.sasrec import SASRec
from recdistill.models.text import TextRecommender

MODELS: dict[str, type[Recommender]] = {
    model.name: model for model in (SASRec, GRU4Rec, NARM, BERT4Rec, TextRecommender, Popularity)
}
