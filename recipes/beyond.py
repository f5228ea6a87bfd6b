"""The library's own summary beyond the paper: models that it has never seen, from scratch, and how it ranks them.

    make results/beyond.json

Eleven models of five families learn all their weights from a summary alone, by the library's default training, and
are compared with themselves on all data: how much of the score they reach, and whether the summary ranks them as all
data do. *Random rows with soft labels* have the same users and as many bytes; ``labels`` is the own method without its
outer loop; ``compact`` has no outer loop either, but labels of few numbers each and more users in the same bytes.
Models that the own method holds as students while it learns are *used*; all is also stated for the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from recdistill.distill.refined import Refined
from recdistill.evaluation.fidelity import agreement
from recdistill.evaluation.panel import Panel, difference, noise, ranking, ratio, shared
from recdistill.study.controls import row_bytes
from recipes.cells import Recipe, full, refined, selector, student
from recipes.collect import body_of, by_row, find, panel_of, rounded, rows_of
from recipes.datasets import ML_1M, ML_100K, Budget, Dataset
from recipes.jobs import Scored, seed_by_seed
from recipes.places import Place
from recipes.plans import Method
from recipes.zoo import OWN, ZOO

Row = dict[str, Any]
SEEDS = (0, 1, 2, 3, 4)
FULL_FIRST = (0, 1)
"""Seeds whose models on all data come before those on summaries: two, so that noise is known early."""
FULL, OURS, LABELS, COMPACT, CONTROL, HARD = "full", "refined", "labels", "compact", "random_soft", "random"
PAIRS = ((OURS, CONTROL), (OURS, LABELS), (LABELS, CONTROL), (COMPACT, CONTROL), (OURS, HARD))
"""Summaries that are compared: what the method adds, of that its outer loop and its labels, what more users add at the
same bytes, and soft labels at all."""
LABEL_RANK = 8
"""Numbers of a label in the compact form: a quarter of the teacher's."""


BASIS_BYTES = 4
"""Of a number of the basis of compact labels."""


@dataclass(frozen=True, kw_only=True)
class Wave:
    """One dataset with one budget."""

    dataset: Dataset
    """Which."""
    budget: Budget
    """Sequences, and items in each."""
    own_ratio: float
    """What the dataset's own SASRec should reach, over itself on all data."""
    unused_ratio: float
    """What the models that are not used in distillation should reach on average."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the own method, beside its defaults."""

    def summaries(self) -> dict[str, Method]:
        """Return what models are trained on beside all data, most important first."""
        without_loop: dict[str, Any] = {**self.options, "epochs": 0}
        return {
            OURS: Method(self.method),
            CONTROL: Method(selector(CONTROL, self.budget)),
            LABELS: Method(refined(self.budget, **without_loop), LABELS),
            COMPACT: Method(refined(self.compact, **without_loop, users="herding", label_rank=LABEL_RANK), COMPACT),
            HARD: Method(selector(HARD, self.budget)),
        }

    @property
    def compact(self) -> Budget:
        """As many sequences with labels of few numbers as take the bytes of the budget with whole labels."""
        sequences, length = self.budget
        width = int(self.dataset.sasrec["embedding_dim"])
        free = sequences * row_bytes(length, width) - LABEL_RANK * width * BASIS_BYTES
        return free // row_bytes(length, LABEL_RANK), length

    @property
    def method(self) -> Refined:
        """The own method."""
        return refined(self.budget, **self.options)

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Return the groups of models by name: all, those used in distillation, the others that are trained.

        Popularity is among all, where models are ranked; it reads no labels, so that it is no judge of them.
        """
        used = tuple(model for model in ZOO if model in self.method.families)
        unused = tuple(model for model in ZOO if model not in used and model != "popularity")
        return {"all": tuple(ZOO), "used": used, "unused": unused}

    def cells(self, place: Place) -> dict[str, dict[str, Scored]]:
        """Return the cells of a place, by what models are trained on and by model."""
        cells: dict[str, dict[str, Scored]] = {
            FULL: {name: full(place, "judging", model) for name, model in ZOO.items()}
        }
        for name, plan in self.summaries().items():
            cells[name] = {judge: student(place, plan, "random", "judging", model) for judge, model in ZOO.items()}
        return cells

    def named(self) -> dict[str, dict[str, Scored]]:
        """Return the cells of one seed, for the names of their rows."""
        return self.cells(Place(self.dataset, self.budget[1], SEEDS[0]))


WAVES = (
    Wave(dataset=ML_100K, budget=(30, 50), own_ratio=1.0, unused_ratio=0.95),
    Wave(dataset=ML_1M, budget=(200, 100), own_ratio=0.97, unused_ratio=0.93),
)


def cells(seeds: Sequence[int], waves: Sequence[Wave] = WAVES) -> list[Scored]:
    """Return all cells, wave by wave and seed by seed."""
    return [cell for wave in waves for cell in _cells(wave, seeds)]


def _cells(wave: Wave, seeds: Sequence[int]) -> list[Scored]:
    def of_place(place: Place) -> list[Scored]:
        found = wave.cells(place)
        whole = list(found.pop(FULL).values())
        parts = [cell for some in found.values() for cell in some.values()]
        return [*whole, *parts] if place.seed in FULL_FIRST else [*parts, *whole]

    return seed_by_seed(seeds, ((wave.dataset, wave.budget[1]),), of_place)


def panels(wave: Wave, made: Sequence[Scored]) -> dict[str, Panel]:
    """Return the finished scores of a wave, by what models were trained on."""
    rows = by_row(made)
    found = {
        name: {model: rows.get(cell.row, []) for model, cell in some.items()} for name, some in wave.named().items()
    }
    return {name: panel_of(some) for name, some in found.items()}


def models_of(wave: Wave, scores: Mapping[str, Panel]) -> list[Row]:
    """Return each model on each summary, beside itself on all data."""
    found = []
    for model in ZOO:
        for name in wave.summaries():
            seeds = shared((model,), scores[name], scores[FULL])
            if seeds:
                values = [float(scores[key].means((model,), seeds)[0]) for key in (FULL, name)]
                reached = ratio(scores[name], scores[FULL], (model,))
                names = {"dataset": wave.dataset.name, "model": model, "used": model in wave.method.families}
                figures = {"full": values[0], "score": values[1], "ratio": reached and asdict(reached)}
                found.append({**names, "summary": name, "seeds": len(seeds), **rounded(figures)})
    return found


def summaries_of(wave: Wave, scores: Mapping[str, Panel], rows: Sequence[Row]) -> list[Row]:
    """Return each summary: its bytes, mean ratios over groups of models, and how it ranks them."""
    found, names = [], wave.named()
    for name in wave.summaries():
        groups: dict[str, Row] = {}
        for group, models in wave.groups().items():
            reached, whole = ratio(scores[name], scores[FULL], models), scores[FULL]
            about = {"models": len(models), "seeds": len(shared(models, scores[name], whole))}
            mean = {"mean_ratio": reached and rounded(asdict(reached))}
            order = None if group == "used" else ranking(scores[name], whole, models)  # four are too few to rank
            groups[group] = about | mean | {"ranking": order and rounded(asdict(order))}
        there = (find(rows, name=cell.row) for cell in names[name].values())
        size = next((row["bytes"] for row in there if row is not None), None)
        found.append({"dataset": wave.dataset.name, "summary": name, "bytes": size, "groups": groups})
    return found


def full_data_of(wave: Wave, scores: Mapping[str, Panel]) -> list[Row]:
    """Return how well the full data agree with themselves."""
    groups = wave.groups()
    agreed = {group: noise(scores[FULL], groups[group]) for group in ("all", "unused")}
    rows = {group: found and rounded(asdict(found)) for group, found in agreed.items()}
    return [{"dataset": wave.dataset.name, "groups": rows}]


def differences_of(wave: Wave, scores: Mapping[str, Panel]) -> list[Row]:
    """Return the pairs of summaries in points of the metric, for the own SASRec and averaged over unused models."""
    found = []
    for group, models in ((OWN, (OWN,)), ("unused", wave.groups()["unused"])):
        for first, second in PAIRS:
            compared = difference(scores[first], scores[second], models)
            if compared is not None:
                names = {"dataset": wave.dataset.name, "group": group, "first": first, "second": second}
                found.append(names | rounded(asdict(compared)))
    return found


def targets_of(wave: Wave, scores: Mapping[str, Panel]) -> list[Row]:
    """Return what was aimed at and what each form of the own method reached; ``None`` where that is not measured."""
    budgets = {OURS: wave.budget, COMPACT: wave.compact}
    return [target for name, budget in budgets.items() for target in _targets_of(wave, scores, name, budget)]


def _targets_of(wave: Wave, scores: Mapping[str, Panel], name: str, budget: Budget) -> list[Row]:
    groups, found = wave.groups(), []
    ours, control, whole = scores[name], scores[CONTROL], scores[FULL]
    words = f"{wave.dataset.name} {budget[0]}x{budget[1]}, {name}"

    def add(what: str, wanted: float, measured: float | None, seeds: int, *, above: bool = False) -> None:
        met = None if measured is None else measured > wanted if above else measured >= wanted
        about = {"what": f"{words}: {what}", "published": wanted, "measured": rounded(measured)}
        found.append(about | {"met": met, "seeds": seeds, "seeds_wanted": len(SEEDS)})

    others = groups["unused"]
    for models, who, wanted in (
        ((OWN,), OWN, wave.own_ratio),
        (others, f"mean of {len(others)} models not used in distillation", wave.unused_ratio),
    ):
        reached, compared = ratio(ours, whole, models), difference(ours, control, models)
        value = None if reached is None else reached.value
        add(f"ratio to all data, {who}, at least", wanted, value, len(shared(models, ours, whole)))
        low = None if compared is None else compared.difference.low
        both = len(shared(models, ours, control))
        add(f"low end of the interval of the gain over {CONTROL}, {who}, above", 0.0, low, both, above=True)
    seeds, gain = shared(groups["all"], ours, control, whole), _tau_gain(scores, name, groups["all"])
    add(f"tau of {len(groups['all'])} models, minus that of {CONTROL}, at least", 0.0, gain, len(seeds))
    return found


def _tau_gain(scores: Mapping[str, Panel], name: str, models: Sequence[str]) -> float | None:
    seeds = shared(models, *(scores[key] for key in (name, CONTROL, FULL)))
    if not seeds:
        return None
    whole = scores[FULL].means(models, seeds)
    ours, theirs = (agreement(whole, scores[key].means(models, seeds)).tau for key in (name, CONTROL))
    return None if ours is None or theirs is None else ours - theirs


def body(made: list[Scored], waves: Sequence[Wave] = WAVES) -> Row:
    """Return the result."""
    judges: dict[str, Row] = {}
    for wave in waves:
        for judge, cell in ((judge, cell) for some in wave.named().values() for judge, cell in some.items()):
            judges[cell.row] = {"judge": judge, "used": judge in wave.method.families}
    rows = [row | judges[row["name"]] for row in rows_of(made, ("full",))]
    found: dict[str, list[Row]] = {}
    for wave in waves:
        scores = panels(wave, made)
        for part, entries in (
            ("models", models_of(wave, scores)),
            ("summaries", summaries_of(wave, scores, rows)),
            ("differences", differences_of(wave, scores)),
            ("full_data", full_data_of(wave, scores)),
            ("targets", targets_of(wave, scores)),
        ):
            found.setdefault(part, []).extend(entries)
    return body_of(made, rows, found.pop("targets"), **found)


RECIPE = Recipe("beyond", SEEDS, cells, body)
