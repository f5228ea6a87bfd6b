"""How often the 95 % intervals hold what they are about, by simulation.

    python -m benchmarks.interval_coverage --json

A score is made from a latent normal number: the place of the model on the dataset, an effect of the seed on the model
there, one of the user on all models, on the model and on the model and dataset, and a rest. It is that number itself,
or NDCG@10 of the rank that it gives, which is 0 for four users of five. The truth is the mean over all seeds and users
that there could be; for rankings the places of the models are drawn anew each time. Beside the library's intervals
stand those of the bootstrap that draws seeds and users, with percentiles, and of users drawn alone.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr, ndtri

from benchmarks.harness import arguments, show
from recdistill.evaluation.fidelity import agreement
from recdistill.evaluation.panel import agreement_intervals, regrets_of, taus_of
from recdistill.evaluation.posterior import measured
from recdistill.evaluation.statistics import LEVEL, Interval, mean_interval, mean_ratio
from recipes.record import write_result

SIMULATIONS = 2_000
RESAMPLES = 500
"""Of the bootstrap; drawn anew for every ``SHARING`` simulations."""
SHARING = 100
DRAWS = 500
"""Plausible scores behind an interval of a ranking: a quarter of what the library draws."""
HITS = 0.2
"""Users whose item is among the first ten, at place 0."""
GAINS = np.concatenate([[0.0], 1 / np.log2(np.arange(10, 0, -1) + 1)])
"""NDCG@10 of no hit, and of ranks 10 to 1."""
CUTS = ndtri(np.concatenate([[1 - HITS], 1 - HITS * np.arange(9, 0, -1) / 10]))
"""Latent numbers from which on the next gain is reached."""


@dataclass(frozen=True, kw_only=True)
class Regime:
    """What makes scores differ."""

    name: str
    """How the result calls it."""
    seeds: float
    """Variance of a seed, over the variance of a mean of all users."""
    model: float
    """Part of the variance of users that is the model's own on both datasets."""
    dataset: float
    """Part that is the model's own on one dataset."""
    rest: float
    """Part that is of one seed alone."""


REGIMES = (
    Regime(name="as measured", seeds=0.3, model=0.15, dataset=0.2, rest=0.15),
    Regime(name="users", seeds=0.02, model=0.25, dataset=0.15, rest=0.05),
    Regime(name="seeds", seeds=10.0, model=0.2, dataset=0.1, rest=0.2),
    Regime(name="rest", seeds=0.0, model=0.05, dataset=0.05, rest=0.8),
)
"""``as measured``: on ML-100k NDCG@10 of two models correlates by about 0.5 over users, of a model on all data and on a
summary by 0.65, and of two seeds by 0.85 to 0.9."""
FORMS = ("normal", "ndcg")
SPREADS = {
    "apart": (4.0, 0.9, 0.0),
    "near": (1.5, 0.8, 0.0),
    "same order": (2.0, 0.99, 0.0),
    "nearly tied": (0.3, 0.5, 0.0),
    "two far off": (1.5, 0.2, 15.0),
    "two off": (1.5, 0.2, 8.0),
}
"""Of models: standard deviation of their places over that of the noise, correlation of the two datasets, and how far
below the others two of them lie on both, over that of the noise."""

Scores = Float[np.ndarray, "2 M S U"]
Places = Float[np.ndarray, "2 M"]


@dataclass(frozen=True, kw_only=True)
class World:
    """Where scores come from."""

    form: str
    """``normal`` or ``ndcg``."""
    regime: Regime
    """What makes them differ."""
    seeds: int
    """Trainings of each model on each dataset."""
    users: int
    """Held-out users."""

    @property
    def _seed_spread(self) -> float:
        return float(np.sqrt(self.regime.seeds / self.users))

    def draw(self, places: Places, rng: np.random.Generator) -> Scores:
        """Return scores of models on two datasets."""
        models, regime = places.shape[1], self.regime
        found = rng.standard_normal((2, models, self.seeds, self.users)) * np.sqrt(regime.rest)
        found += rng.standard_normal((2, models, 1, self.users)) * np.sqrt(regime.dataset)
        found += rng.standard_normal((models, 1, self.users)) * np.sqrt(regime.model)
        found += rng.standard_normal(self.users) * np.sqrt(1 - regime.model - regime.dataset - regime.rest)
        found += rng.standard_normal((2, models, self.seeds, 1)) * self._seed_spread + places[..., None, None]
        return 0.3 + 0.2 * found if self.form == "normal" else GAINS[np.searchsorted(CUTS, found)]

    def truth(self, places: Places) -> Places:
        """Return the mean over all seeds and users that there could be."""
        if self.form == "normal":
            return 0.3 + 0.2 * places
        above = ndtr((places[..., None] - CUTS) / np.sqrt(1 + self._seed_spread**2))
        found: np.ndarray = above @ np.diff(GAINS)
        return found

    def noise(self) -> float:
        """Return about how far chance moves the difference of two models, in latent numbers."""
        regime = self.regime
        users = regime.model + regime.dataset + regime.rest / self.seeds
        return float(np.sqrt((users + regime.seeds / self.seeds) / self.users))


Found = tuple[float, Interval]
"""The truth and an interval for it."""


def resampler(world: World, rng: np.random.Generator) -> Callable[[Scores], dict[str, np.ndarray]]:
    """Return a function that gives the means (resamples, 2, M) of scores under drawn users, and seeds too."""
    drawn = rng.multinomial(world.users, np.full(world.users, 1 / world.users), RESAMPLES) / world.users
    over = rng.multinomial(world.seeds, np.full(world.seeds, 1 / world.seeds), RESAMPLES) / world.seeds

    def means(scores: Scores) -> dict[str, np.ndarray]:
        by_seed = (drawn @ scores.reshape(-1, world.users).T).reshape(RESAMPLES, *scores.shape[:3])
        return {"bootstrap": np.einsum("rams,rs->ram", by_seed, over), "users alone": by_seed.mean(axis=3)}

    return means


def percentiles(value: float, resampled: np.ndarray) -> Interval:
    """Return the interval of a bootstrap."""
    low, high = np.quantile(resampled, LEVEL)
    return Interval(value, float(low), float(high))


def of_means(world: World, models: int, simulations: int, rng: np.random.Generator) -> Iterator[dict[str, Found]]:
    """Yield the intervals of means, differences and ratios, new and old."""
    places = np.stack([np.linspace(-0.2, 0.2, models), np.linspace(-0.4, 0.1, models)])
    truth = world.truth(places)
    ratio, difference = float((truth[1] / truth[0]).mean()), float((truth[1] - truth[0]).mean())
    for simulation in range(simulations):
        if simulation % SHARING == 0:
            resample = resampler(world, rng)
        scores = world.draw(places, rng)
        one, two = scores
        reached = mean_ratio(zip(two, one, strict=True))
        found: dict[str, Found] = {"ratio/new": (ratio, reached)} if reached else {}
        if models == 1:
            found["mean/new"] = float(truth[0, 0]), mean_interval(one[0])
            found["difference/new"] = difference, mean_interval(two[0] - one[0])
        for name, means in resample(scores).items():
            if means[:, 0].min() > 0:
                found[f"ratio/{name}"] = ratio, percentiles(ratio, (means[:, 1] / means[:, 0]).mean(axis=1))
            if models == 1:
                found[f"mean/{name}"] = float(truth[0, 0]), percentiles(0.0, means[:, 0, 0])
                found[f"difference/{name}"] = difference, percentiles(0.0, means[:, 1, 0] - means[:, 0, 0])
        yield found


def of_rankings(
    world: World, models: int, spread: str, simulations: int, rng: np.random.Generator
) -> Iterator[dict[str, Found]]:
    """Yield the intervals of tau and regret, new and old, of models whose places are drawn each time."""
    wide, together, far = SPREADS[spread]
    root = np.linalg.cholesky(np.array([[1, together], [together, 1]])) * wide * world.noise()
    for simulation in range(simulations):
        if simulation % SHARING == 0:
            resample = resampler(world, rng)
        places = root @ rng.standard_normal((2, models)) - far * world.noise() * (np.arange(models) < 2)
        truth, scores = world.truth(places)[:, None], world.draw(places, rng)
        tau, regret = float(taus_of(*truth)[0]), float(regrets_of(*truth)[0])
        whole = measured(scores.mean(axis=3), [scores])
        taus, regrets = agreement_intervals(agreement(*whole.means), whole, rng, draws=DRAWS)
        means = np.moveaxis(resample(scores)["bootstrap"], 1, 0)
        found: dict[str, Found] = {"tau/new": (tau, taus)} if taus else {}
        yield found | {
            "regret/new": (regret, regrets),
            "tau/bootstrap": (tau, percentiles(tau, taus_of(*means))),
            "regret/bootstrap": (regret, percentiles(regret, regrets_of(*means))),
        }


def coverage(simulated: Iterator[dict[str, Found]]) -> list[dict[str, Any]]:
    """Return, for every statistic and interval, how often the interval holds the truth, and its median width."""
    held: dict[str, list[tuple[bool, bool, float]]] = {}
    for found in simulated:
        for name, (truth, interval) in found.items():
            below, above = truth < interval.low - 1e-9, truth > interval.high + 1e-9
            held.setdefault(name, []).append((below, above, interval.high - interval.low))
    rows = []
    for name in sorted(held):
        entries = held[name]
        below, above, width = np.array(entries, dtype=float).T
        observed, count = 1 - float((below + above).mean()), len(entries)
        rows.append(
            dict(zip(("statistic", "interval"), name.split("/"), strict=True))
            | {
                "nominal": LEVEL[1] - LEVEL[0],
                "observed": round(observed, 4),
                "error": round(float(np.sqrt(observed * (1 - observed) / count)), 4),
                "truth_below": round(float(below.mean()), 4),
                "truth_above": round(float(above.mean()), 4),
                "width": float(f"{np.median(width):.4g}"),
                "simulations": count,
            }
        )
    return rows


def cases() -> Iterator[tuple[dict[str, Any], Callable[[int, np.random.Generator], Iterator[dict[str, Found]]]]]:
    """Yield what is simulated: how a row names it, and the simulation."""
    for regime in REGIMES:
        for seeds in (2, 3, 5, 10):
            for form, users in (("normal", 1_000), ("ndcg", 300), ("ndcg", 1_000), ("ndcg", 6_000)):
                if users > 1_000 and seeds not in (2, 5):
                    continue
                world = World(form=form, regime=regime, seeds=seeds, users=users)
                yield _about(world, models=1), partial(of_means, world, 1)
        for seeds in (2, 5):
            world = World(form="ndcg", regime=regime, seeds=seeds, users=300)
            yield _about(world, models=11), partial(of_means, world, 11)
    rankings = [(REGIMES[0], 5, spread, 11) for spread in SPREADS]
    rankings += [(REGIMES[0], 2, "near", 11), (REGIMES[0], 1, "near", 11), (REGIMES[0], 5, "near", 10)]
    rankings += [(REGIMES[0], 5, "apart", 12), (REGIMES[2], 3, "near", 11)]
    for regime, seeds, spread, models in rankings:
        one = regime if seeds > 1 else Regime(name="users alone", seeds=0.0, model=0.3, dataset=0.2, rest=0.0)
        world = World(form="ndcg", regime=one, seeds=seeds, users=1_000)
        yield _about(world, models=models) | {"spread": spread}, partial(of_rankings, world, models, spread)


def _about(world: World, *, models: int) -> dict[str, Any]:
    about = {"regime": world.regime.name, "form": world.form, "seeds": world.seeds}
    return about | {"users": world.users, "models": models}


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was asked for, beside what was measured: the least and the largest coverage of the new intervals."""
    found = []
    for few, which in ((True, "two seeds"), (False, "one seed, or three and more")):
        for statistic in ("mean", "difference", "ratio", "tau", "regret"):
            ours = [row for row in rows if (row["statistic"], row["interval"]) == (statistic, "new")]
            seen = [row["observed"] for row in ours if (row["seeds"] == 2) == few]
            if seen:
                span = {"measured": [min(seen), max(seen)], "met": min(seen) >= 0.93 and max(seen) <= 0.97}
                found.append({"what": f"coverage of {statistic}, {which}", "target": "0.93 to 0.97"} | span)
    return found


def main() -> None:
    """Simulate, print and write."""
    options = arguments(__doc__ or "")
    simulations, rows, start = 40 if options.quick else SIMULATIONS, [], time.perf_counter()
    for number, (about, simulate) in enumerate(cases()):
        for row in coverage(simulate(simulations, np.random.default_rng([7, number]))):
            rows.append(about | row)
            show(rows[-1])
    show({"seconds": round(time.perf_counter() - start)})
    if options.json and not options.quick:
        command = "python -m benchmarks.interval_coverage --json"
        world = {"regimes": [vars(regime) for regime in REGIMES], "spreads": SPREADS}
        body = {"threads": options.threads, "rows": rows, "targets": targets(rows)}
        write_result("benchmarks/interval_coverage", command, body | world)


if __name__ == "__main__":
    main()
