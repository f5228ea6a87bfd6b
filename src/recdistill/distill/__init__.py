"""Distillers, selectors and controls. A new method is one file and one line of ``DISTILLERS``."""

from recdistill.distill.base import Distiller
from recdistill.distill.coresets.counts import PopularityCounts
from recdistill.distill.coresets.dealrec import DEALRec
from recdistill.distill.coresets.el2n import EL2N
from recdistill.distill.coresets.goracs import GORACS
from recdistill.distill.coresets.herding import Herding
from recdistill.distill.coresets.k_center import KCenter
from recdistill.distill.coresets.longest import Longest
from recdistill.distill.coresets.most_recent import MostRecent
from recdistill.distill.coresets.random import Random
from recdistill.distill.coresets.random_soft import RandomSoft
from recdistill.distill.coresets.untrained import Untrained
from recdistill.distill.farzi import Farzi
from recdistill.distill.foster import FOSTER
from recdistill.distill.refined import Refined
from recdistill.distill.td3 import TD3

DISTILLERS: dict[str, type[Distiller]] = {
    method.method: method
    for method in (
        TD3,
        Farzi,
        FOSTER,
        Refined,
        Random,
        RandomSoft,
        Longest,
        MostRecent,
        KCenter,
        Herding,
        EL2N,
        DEALRec,
        GORACS,
        PopularityCounts,
        Untrained,
    )
}
