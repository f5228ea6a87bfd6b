"""Distillers, selectors and controls. A new method is one file and one line of ``DISTILLERS``."""

from recdistill.distill.base import Distiller
from recdistill.distill.coresets.counts import PopularityCounts
from recdistill.distill.coresets.longest import Longest
from recdistill.distill.coresets.most_recent import MostRecent
from recdistill.distill.coresets.random import Random
from recdistill.distill.coresets.random_soft import RandomSoft
from recdistill.distill.coresets.untrained import Untrained
from recdistill.distill.td3 import TD3

DISTILLERS: dict[str, type[Distiller]] = {
    method.method: method for method in (TD3, Random, RandomSoft, Longest, MostRecent, PopularityCounts, Untrained)
}
