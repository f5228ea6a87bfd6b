"""How many epochs a training will take that validation stops early: a range, before it is known.

Where the best epoch lies cannot be computed; the training itself finds it. Three things are known of it, and the best
of them is used. A training that was seen to its end took what it took: from the same seed it will again. Trainings of
the same settings from other seeds that lie in the cache took what they state. Otherwise the rule below holds, which was
read off finished trainings and is as good as they are alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from recdistill.training.fit import TrainingRecipe, most_epochs

FULL = (1.5, 3.4, 6.5)
"""Epochs over patience, low, expected and high, of models trained on all data.

Of 31 trainings on ML-100k and Magazine (patience 15; five families in several widths, the library's recipe and that of
TD3's author) the middle is 3.5, and 27 lie inside. Data and model move it more than seeds do: SASRec of width 32 took
2.7 to 4.0 on ML-100k, NARM up to 7.1 there, most families about 2 on Magazine.
"""
DISTILLED = (1.05, 2.8, 6.5)
"""The same of models trained on distilled rows: of 92 trainings 86 lie inside; the middle is 3.7 on ML-100k and 1.5 on
Magazine, and what is expected lies between the two."""


@dataclass(frozen=True, kw_only=True)
class Epochs:
    """How many epochs a training will take.

    Args:
        low, expected, high: the range; three equal numbers where it is known.
        rule: how it is known, for people.
    """

    low: int
    expected: int
    high: int
    rule: str


def foreseen(
    num_rows: int,
    recipe: TrainingRecipe,
    rule: tuple[float, float, float],
    *,
    scores: Sequence[float] = (),
    others: Sequence[int] = (),
) -> Epochs:
    """Return how many epochs a training will take.

    Args:
        num_rows: rows that it is trained on, at least 1.
        recipe: how; without patience it is trained to the end.
        rule: epochs over patience, such as :data:`FULL`.
        scores: validation scores of the epochs that were seen of this very training; it had not stopped after them.
        others: epochs of finished trainings that differ from this one by the seed.
    """
    most = most_epochs(num_rows, recipe)
    if recipe.patience is None:
        return Epochs(low=most, expected=most, high=most, rule="nothing stops it early")
    patience = recipe.patience * recipe.validate_every
    low, expected, high = (min(most, round(factor * patience)) for factor in rule)
    told = "expected from the patience"
    if others:
        expected = round(median(others))
        low, high = min(low, *others), max(high, *others)
        told = f"as {len(others)} finished {'training' if len(others) == 1 else 'trainings'} from other seeds"
    least = min(most, _least(scores, patience, recipe.validate_every))
    low, expected, high = (min(most, max(least, count)) for count in (low, expected, high))
    return Epochs(low=low, expected=expected, high=high, rule=told)


def _least(scores: Sequence[float], patience: int, every: int) -> int:
    """Return the fewest epochs of a training after it was seen to go on: patience begins at its best score."""
    if not scores:
        return patience + every
    return (max(range(len(scores)), key=scores.__getitem__) + 1) * every + patience
