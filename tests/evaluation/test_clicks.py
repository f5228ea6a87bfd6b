"""Metrics of clicks against scikit-learn, against loops over pairs, and in the cases without an answer."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from recdistill.errors import InputError, NumericalError
from recdistill.evaluation.clicks import auc, calibration_error, click_scores, grouped_auc, log_loss

rows = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.integers(-3, 3), st.integers(0, 3)), min_size=2, max_size=40)


def columns(some: list[tuple[float, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, logits, groups = (np.array(column) for column in zip(*some, strict=True))
    return labels, logits.astype(float), groups


@given(rows)
def test_auc_is_the_chance_of_a_pair_in_order(some: list[tuple[float, int, int]]) -> None:
    labels, logits, _ = columns(some)
    assume(0 < labels.sum() < len(labels))
    pairs = itertools.product(logits[labels == 1], logits[labels == 0])
    slow = np.mean([float(a > b) + 0.5 * float(a == b) for a, b in pairs])
    assert auc(labels, logits) == pytest.approx(slow)
    assert auc(labels, logits) == pytest.approx(roc_auc_score(labels, logits))


@given(rows)
def test_the_log_loss_is_that_of_scikit_learn(some: list[tuple[float, int, int]]) -> None:
    labels, logits, _ = columns(some)
    slow = sklearn_log_loss(labels, 1 / (1 + np.exp(-logits)), labels=[0, 1])
    assert log_loss(labels, logits) == pytest.approx(slow)


def test_the_log_loss_of_a_sure_mistake_is_exact() -> None:
    assert log_loss(np.array([0.0, 1.0]), np.array([1000.0, 1000.0], dtype=np.float32)) == 500


@given(rows)
def test_groups_with_one_label_do_not_count(some: list[tuple[float, int, int]]) -> None:
    labels, logits, groups = columns(some)
    slow, weights = [], []
    for group in set(groups.tolist()):
        inside = groups == group
        if len(set(labels[inside])) == 2:
            slow.append(roc_auc_score(labels[inside], logits[inside]))
            weights.append(inside.sum())
    found = grouped_auc(labels, logits, groups)
    assert found == (None if not slow else pytest.approx(np.average(slow, weights=weights)))


def test_calibration_compares_rates_in_bins() -> None:
    labels = np.array([1.0, 0, 0, 0, 1, 1])
    logits = np.log(np.array([0.25, 0.25, 0.25, 0.25, 0.5, 0.5]) / np.array([0.75, 0.75, 0.75, 0.75, 0.5, 0.5]))
    assert calibration_error(labels, logits, bins=1) == pytest.approx(abs(2 / 6 - 3 / 6))
    assert calibration_error(labels, logits, bins=3) == pytest.approx((abs(0.5 - 1) + abs(0.5 - 0) + abs(1 - 2)) / 6)
    generator = np.random.default_rng(0)
    chance = generator.uniform(size=200_000)
    assert calibration_error((generator.uniform(size=len(chance)) < chance) * 1.0, np.log(chance / (1 - chance))) < 0.01


def test_all_metrics_come_by_name() -> None:
    labels, logits = np.array([1.0, 0.0, 1.0]), np.array([0.3, -0.2, -1.0])
    found = click_scores(labels, logits).as_dict()
    assert set(found) == {"auc", "log_loss", "calibration_error"}
    assert found["auc"] == 0.5
    assert set(click_scores(labels, logits, np.array([1, 1, 2])).as_dict()) == {*found, "grouped_auc"}


def test_samples_without_an_answer_are_told() -> None:
    with pytest.raises(InputError, match=r"all 2 labels are 1.*both"):
        click_scores(np.array([1.0, 1.0]), np.array([0.1, 0.2]))
    with pytest.raises(NumericalError, match="step 2: the predicted logit is nan"):
        click_scores(np.array([1.0, 0.0]), np.array([0.1, np.nan]))
