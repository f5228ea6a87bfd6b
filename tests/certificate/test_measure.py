"""What a certificate states follows from the scores of its trainings: compared with sums written out here.

The statistics themselves are tested in tests/evaluation, trainings in tests/study.
Not proved: that a panel of four tiny models means anything.
"""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from examined import MODELS, Made
from scipy import stats

from recdistill.certificate.measure import certificate_of, student_of, was_used
from recdistill.certificate.record import Dataset
from recdistill.certificate.trainings import cells_of
from recdistill.data.distilled import DistilledDataset, size_in_bytes
from recdistill.data.sequences import TrainingData
from recdistill.errors import InputError
from recdistill.evaluation.privacy import nearness_of_users
from recdistill.rng import Streams
from recdistill.study.cells import Cell, ModelSpec

NAMES = tuple(spec.name for spec in MODELS)
LEARNING = NAMES[:3]


@pytest.fixture(scope="module")
def scores(made: Made) -> dict[tuple[str, str, int], np.ndarray]:
    """NDCG@10 of every event by dataset, model and seed, from the ranks of the cells."""
    found = {}
    for cell in cells_of(made.exam, made.datasets):
        ranks = cell.ranks("full").numpy()
        gain = [1 / math.log2(rank + 1) if rank <= 10 else 0.0 for rank in ranks.tolist()]
        found[cell.data.name, cell.model.name, cell.seed] = np.array(gain)
    return found


def means(scores, dataset: str) -> np.ndarray:
    return np.array([np.mean([scores[dataset, name, seed] for seed in range(3)]) for name in NAMES])


def test_all_data_come_first_and_controls_say_what_makes_them_comparable(made: Made) -> None:
    found = made.certificate
    assert [one.kind for one in found.datasets] == ["all", "distilled", *["control"] * len(found.controls)]
    assert {one.rule for one in found.controls} <= {"equal bytes", "equal rows"}
    assert {one.method for one in found.controls if one.rule == "equal bytes"} == {"random", "random_soft"}
    assert found.missing == ()
    assert [judge.name for judge in found.judges] == list(NAMES)


def test_scores_are_means_of_the_trainings(made: Made, scores) -> None:
    for dataset in made.certificate.datasets:
        for score in dataset.scores:
            per_seed = [float(scores[dataset.name, score.model, seed].mean()) for seed in range(3)]
            assert score.seeds == (0, 1, 2)
            assert score.values == pytest.approx(per_seed, rel=1e-5)
            assert score.mean.value == pytest.approx(np.mean(per_seed), rel=1e-5)
            assert score.mean.low <= score.mean.value <= score.mean.high
            assert score.metrics["full"]["NDCG@10"] == pytest.approx(np.mean(per_seed), rel=1e-5)
            assert set(score.metrics) == {"full", "uni100"}


def test_ratios_are_to_the_same_model_on_all_data(made: Made, scores) -> None:
    whole = means(scores, "all")
    for dataset in made.certificate.datasets[1:]:
        reached = means(scores, dataset.name) / whole
        for index, score in enumerate(dataset.scores):
            assert score.ratio is None or score.ratio.value == pytest.approx(reached[index], rel=1e-4)
        learning = [NAMES.index(name) for name in LEARNING]
        assert dataset.mean_ratio["all"].value == pytest.approx(reached[learning].mean(), rel=1e-4)
    assert all(score.ratio is None for score in made.certificate.full.scores)
    assert made.certificate.full.mean_ratio == {"all": None, "unused": None}


def test_fidelity_is_that_of_the_mean_scores(made: Made, scores) -> None:
    whole = means(scores, "all")
    for dataset in made.certificate.datasets[1:]:
        theirs, found = means(scores, dataset.name), dataset.fidelity["all"]
        signs = [np.sign((whole[a] - whole[b]) * (theirs[a] - theirs[b])) for a, b in combinations(range(4), 2)]
        assert found.tau.value == pytest.approx(np.mean(signs), abs=1e-5)  # no ties among means of real scores
        assert found.pearson == pytest.approx(stats.pearsonr(whole, theirs).statistic, abs=1e-5)
        taken = whole[theirs.argmax()]
        assert found.regret.value == pytest.approx((whole.max() - taken) / whole.max(), abs=1e-5)
        assert found.top_1 == (theirs.argmax() == whole.argmax())
        assert (found.models, found.seeds) == (4, 3)
        assert dataset.fidelity["unused"].models == 3
    assert made.certificate.full.fidelity == {"all": None, "unused": None}


def test_the_teacher_is_used_and_no_other_model(made: Made) -> None:
    assert [judge.used for judge in made.certificate.judges] == [True, False, False, False]
    manifest = made.exam.manifest
    held = manifest.model_copy(update={"parameters": {"families": ["gru4rec_64"]}})
    gru = ModelSpec(name="any", model="gru4rec", config={"hidden_dim": 64, "dropout": 0.2})
    assert was_used(gru, held)
    assert not was_used(gru, manifest)
    assert not was_used(replace(gru, config={"hidden_dim": 32, "dropout": 0.2}), held)


def test_the_gain_is_over_every_other_dataset_and_corrected_for_their_number(made: Made, scores) -> None:
    found = made.certificate
    assert found.distilled.gain is None
    gains = {one.name: one.gain for one in found.datasets if one.gain is not None}
    assert set(gains) == {one.name for one in found.datasets} - {"distilled"}
    for name, gain in gains.items():
        expected = means(scores, "distilled").mean() - means(scores, name).mean()
        assert gain.difference.value == pytest.approx(expected, abs=1e-6)
        assert gain.p <= gain.p_holm <= min(1.0, gain.p * len(gains)) + 1e-12
    smallest = min(gains.values(), key=lambda gain: gain.p)
    assert smallest.p_holm == pytest.approx(min(1.0, smallest.p * len(gains)))


def test_parts_add_up_to_the_whole(made: Made) -> None:
    exam, found = made.exam, made.certificate
    counts = exam.train.histories.train_counts(exam.train.num_items)[1:]
    assert sum(found.parts["items"].values()) == exam.train.num_items
    assert sum(found.parts["interactions"].values()) == counts.sum()
    targets = exam.test.targets(np.arange(len(exam.test))).numpy()
    order = np.argsort(-counts, kind="stable")
    ends = np.searchsorted(np.cumsum(counts[order]) * 3, [counts.sum(), 2 * counts.sum()]) + 1
    part = np.full(len(counts) + 1, 2)
    part[order[: ends[1]] + 1], part[order[: ends[0]] + 1] = 1, 0
    shares = [(part[targets] == index).mean() for index in range(3)]
    for dataset in found.datasets:
        for score in dataset.scores:
            values = [score.parts[name] or 0.0 for name in ("head", "torso", "tail")]
            assert np.dot(values, shares) == pytest.approx(score.mean.value, rel=1e-4)


def test_rows_are_described(made: Made) -> None:
    found = made.certificate
    assert found.full.items_held == {"head": 1.0, "torso": 1.0, "tail": 1.0}
    assert found.full.near is None
    for dataset, trained in zip(found.datasets[1:], made.datasets[1:], strict=True):
        rows = DistilledDataset.load(trained.by_seed[0].folder).rows
        assert isinstance(rows, TrainingData)
        assert dataset.near.copied == 1.0  # all rows here are real users, as they are
        assert dataset.near.median == dataset.near.minimum == 0.0
        assert dataset.num_rows == len(rows)
        assert dataset.bytes == size_in_bytes(trained.by_seed[0].folder)["total"]
    rng = Streams(0).numpy("nearness")
    expected = nearness_of_users(made.exam.train.histories, made.exam.train.num_items, length=6, count=1000, rng=rng)
    assert (found.near_users.median, found.near_users.copied) == (expected.median, expected.copied_share)


def test_a_certificate_is_not_counted_in_the_bytes_of_its_dataset(made: Made) -> None:
    folder = made.exam.distilled
    everything = sum(file.stat().st_size for file in folder.iterdir())
    assert made.certificate.subject.bytes == everything - (folder / "certificate.json").stat().st_size


def test_cost_and_break_even(made: Made) -> None:
    found, seconds = made.certificate.cost, made.exam.manifest.seconds
    for name, dataset in (("full", made.certificate.full), ("distilled", made.certificate.distilled)):
        trained = [dataset.score(model).seconds for model in LEARNING]
        assert getattr(found, name) == pytest.approx(np.mean(trained), abs=1e-3)
    assert (found.teacher, found.distill, found.peers) == (seconds["teacher"], seconds["distill"], 0.0)
    saved = found.full - found.distilled
    spent = found.teacher + found.distill
    assert found.break_even == (math.ceil(spent / saved) if saved > 0 else None)


def test_the_stated_student_has_an_interval_for_one_more_training() -> None:
    values = [0.10, 0.12, 0.11, 0.13]
    found = student_of("small", [0, 1, 2, 3], values)
    reach = 3.182446 * np.std(values, ddof=1) * math.sqrt(1.25)  # the quantile of t with three degrees of freedom
    assert found.interval.value == pytest.approx(0.115)
    assert found.interval.low == pytest.approx(0.115 - reach, rel=1e-5)
    assert found.interval.high == pytest.approx(0.115 + reach, rel=1e-5)
    assert student_of("small", [0, 1], [0.01, 0.2]).interval.low == 0.0  # a score is not negative


def test_the_interval_for_one_more_training_holds_so_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for values in rng.normal(0.1, 0.01, (4000, 4)):
        span = student_of("small", [0, 1, 2], values[:3].tolist()).interval
        inside += span.low <= values[3] <= span.high
    assert inside / 4000 == pytest.approx(0.95, abs=0.012)


def test_what_is_missing_is_named_and_left_out(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = {"distilled/gru/random/seed-2", *(f"all/wide/random/seed-{seed}" for seed in range(3))}
    done = Cell.done
    monkeypatch.setattr(Cell, "done", lambda cell: cell.key not in lost and done(cell))
    found = certificate_of(made.exam, made.datasets)
    assert set(found.missing) == lost
    assert [judge.name for judge in found.judges] == ["small", "gru", "counts"]
    assert found.distilled.score("gru").seeds == (0, 1)
    assert found.distilled.score("small").seeds == (0, 1, 2)
    assert found.distilled.fidelity["all"].seeds == 2
    assert found.distilled.fidelity["all"].models == 3


def test_too_little_is_no_certificate(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    done = Cell.done
    monkeypatch.setattr(Cell, "done", lambda cell: cell.model.name == "small" and done(cell))
    with pytest.raises(InputError, match=r"1 of 4 models are finished on every dataset.*let the trainings go on"):
        certificate_of(made.exam, made.datasets)


def test_one_seed_states_no_student_and_no_ceiling(made: Made) -> None:
    found = certificate_of(replace(made.exam, seeds=1), made.datasets)
    assert found.student is None
    assert found.ceiling == {"all": None, "unused": None}
    assert isinstance(found.distilled, Dataset)
    assert found.distilled.fidelity["all"].seeds == 1
