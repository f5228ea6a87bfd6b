"""DIET on KuaiRand: candidates trained on a memory, on full data and on every baseline, with two kinds of tables.

    make results/diet_kuairand.json

Ten blocks by time; nine are folded in, the tenth is the test. *Frozen*: candidates read the reference model's tables.
*Scratch*: their own, from random ones; DIET's memory is then an export, whose ids stand for groups of ids. Settings
were chosen on the ninth block, with memories of the first eight.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from recdistill.distill.diet import DIET
from recipes.cells import Recipe
from recipes.click_baselines import Matched, Rows, Static
from recipes.click_jobs import KUAIRAND, MODELS, Export, Memory
from recipes.click_students import FROZEN, SCRATCH, Chosen, Everything, Others, Student, Units
from recipes.diet_collect import body_of

SEEDS = (0, 1, 2, 3, 4)
RATIOS = (0.005, 0.01, 0.02)
MAIN = 0.01
SWEEP = (0.0025, 0.005, 0.01, 0.02, 0.05)
"""Ratios at which WuKong is trained, as DIET's figure 3 has it."""
SELECTORS = ("random", "stratified", "el2n", "k_center", "herding", "nacs")
VARIANTS: dict[str, dict[str, Any]] = {
    "no_alignment": {"alignment": "none"},
    "ridge": {"alignment": "ridge"},
    "no_addressing": {"addressing": False},
    "independent": {"selection": "independent"},
    "hardest": {"selection": "hardest"},
    "hard_labels": {"softness": 0.0, "refresh": 0.0},
    "start": {"epochs": 0},
}
"""DIET but for one setting; ``start`` takes no outer step."""
PART = ("deepfm", "dcnv2", "wukong")
"""Candidates of the ablation."""
TEST = KUAIRAND.training_blocks


def memory(seed: int, label: str = "diet", ratio: float = MAIN) -> Memory:
    """Return the memory of a variant."""
    return Memory(KUAIRAND, seed, label, DIET(ratio=ratio, **VARIANTS.get(label, {})))


def reference(seed: int) -> Memory:
    """Return the memory whose reference model labels and tells samples apart; it is the same in every memory."""
    return memory(seed, "start")


def rows(seed: int, rule: str, ratio: float) -> Rows:
    """Return rows that a rule chooses."""
    return Rows(KUAIRAND, seed, rule, ratio, reference(seed))


def export(seed: int, label: str = "diet", ratio: float = MAIN) -> Export:
    """Return a memory with groups of ids."""
    return Export(KUAIRAND, seed, memory(seed, label, ratio))


def in_bytes(seed: int, ratio: float) -> Rows:
    """Return random rows in the bytes of DIET's export."""
    return replace(rows(seed, "random", ratio), like=export(seed, "diet", ratio))


Source = Everything | Units | Chosen | Others


def main_sources(seed: int, ratio: float) -> Iterator[tuple[Source, str]]:
    """Yield DIET and its controls at a ratio."""
    drawn = rows(seed, "random", ratio)
    yield Units(memory(seed, "diet", ratio)), FROZEN
    yield Chosen(drawn, soft=True), FROZEN
    yield Units(memory(seed, "diet", ratio), export(seed, "diet", ratio)), SCRATCH
    yield Chosen(in_bytes(seed, ratio), soft=True), SCRATCH
    yield Chosen(drawn, soft=True), SCRATCH
    yield Chosen(drawn, soft=True, grouped=True), SCRATCH


def baselines(seed: int, ratio: float) -> Iterator[tuple[Source, str]]:
    """Yield everything else that is trained on."""
    drawn = rows(seed, "random", ratio)
    for tables in (FROZEN, SCRATCH):
        for rule in SELECTORS:
            yield Chosen(rows(seed, rule, ratio)), tables
    yield Others(Matched(KUAIRAND, seed, drawn)), FROZEN
    yield Others(Static(KUAIRAND, seed, drawn)), FROZEN


def students(seed: int, sources: Iterator[tuple[Source, str]], models: Sequence[str]) -> list[Student]:
    """Return the candidates of sources."""
    return [Student(KUAIRAND, seed, source, tables, model, TEST) for source, tables in sources for model in models]


def ablation(seed: int) -> list[Student]:
    """Return candidates of every variant."""
    sources: list[tuple[Source, str]] = [(Units(memory(seed, label)), FROZEN) for label in VARIANTS]
    return students(seed, iter(sources), PART)


def blocks(seed: int) -> list[Student]:
    """Return a candidate trained on the memory after every block, scored on the next one."""
    return [
        Student(KUAIRAND, seed, Units(memory(seed, label), version=number), FROZEN, "deepfm", number)
        for label in ("diet", *VARIANTS)
        for number in range(1, TEST)
    ]


def sweep(seed: int) -> list[Student]:
    """Return WuKong at every ratio."""
    made: list[Student] = []
    for ratio in SWEEP:
        drawn = Chosen(rows(seed, "random", ratio), soft=True)
        both: list[tuple[Source, str]] = [(Units(memory(seed, "diet", ratio)), FROZEN), (drawn, FROZEN)]
        made += students(seed, iter(both), ("wukong",))
    return made


def cells(seeds: Sequence[int]) -> list[Student]:
    """Return all cells: the main table first, then baselines, then what only some seeds have, then other ratios."""
    names = tuple(MODELS)
    made: list[Student] = []

    def main(some: Sequence[int]) -> None:
        for seed in some:
            everything: list[tuple[Source, str]] = [(Everything(), SCRATCH)]
            made.extend(students(seed, iter(everything), names) + students(seed, main_sources(seed, MAIN), names))

    def others(some: Sequence[int], ratio: float) -> None:
        for seed in some:
            made.extend(students(seed, baselines(seed, ratio), names))

    main(seeds[:3])
    others(seeds[:1], MAIN)
    for seed in seeds[:1]:
        made += ablation(seed) + blocks(seed) + sweep(seed)
    main(seeds[3:])
    others(seeds[1:3], MAIN)
    for ratio in RATIOS:
        if ratio != MAIN:
            for seed in seeds[:3]:
                made += students(seed, main_sources(seed, ratio), names)
            others(seeds[:1], ratio)
    for seed in seeds[1:3]:
        made += ablation(seed) + blocks(seed) + sweep(seed)
    return list({cell.key: cell for cell in made}.values())


def body(made: list[Student]) -> dict[str, Any]:
    """Return the result."""
    return body_of(made, KUAIRAND, RATIOS, MAIN)


RECIPE = Recipe("diet_kuairand", SEEDS, cells, body)
