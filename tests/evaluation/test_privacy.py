"""Nearness against loops over users, copies against string search, AUC against all pairs and scikit-learn.

A simulation shows that the intervals of the AUC hold the true one about 95 times in a hundred. Not proved: that a long
distance or a small AUC means that users are safe; they do not.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from sklearn.metrics import roc_auc_score

from recdistill.data.batches import HardItems
from recdistill.data.rows import KINDS, HardRows, LowRankRows, Rows, SoftRows, TuckerRows
from recdistill.data.sequences import Histories
from recdistill.errors import InputError, NumericalError, OptionError
from recdistill.evaluation import privacy
from recdistill.evaluation.privacy import (
    attack_auc,
    likeliest,
    log_likelihoods,
    membership_attack,
    membership_cases,
    nearness,
    nearness_of_users,
)
from recdistill.models import MODELS
from recdistill.models.base import Recommender
from reference import examples
from reference import rows as examples_of_rows
from reference.tiny import NUM_ITEMS, histories_of_lists, random_histories, sasrec, training_events


def of_training(*train: list[int]) -> Histories:
    """Return histories of which all but the given training parts is one event each that no row holds."""
    return histories_of_lists(train, [[NUM_ITEMS]] * len(train), [[NUM_ITEMS]] * len(train))


def hard(*sequences: list[int]) -> HardRows:
    width = max(len(sequence) for sequence in sequences)
    padded = [sequence + [0] * (width - len(sequence)) for sequence in sequences]
    return HardRows(torch.tensor(padded), torch.tensor([len(sequence) for sequence in sequences]))


def random_hard(count: int, seed: int) -> HardRows:
    rng = np.random.default_rng(seed)
    return hard(*(rng.integers(1, NUM_ITEMS + 1, rng.integers(2, 9)).tolist() for _ in range(count)))


def random_soft(count: int, *, scale: float = 3.0, num_items: int = NUM_ITEMS) -> LowRankRows:
    generator = torch.Generator().manual_seed(count)
    latent = torch.randn(count, 5, 3, generator=generator, dtype=torch.float64) * scale
    decoder = torch.randn(num_items, 3, generator=generator, dtype=torch.float64)
    return LowRankRows(latent, decoder, torch.tensor([1.0]))


def padded_tucker() -> TuckerRows:
    """Return rows whose softmax has a padding column."""
    rows = examples_of_rows.make("tucker")
    assert isinstance(rows, TuckerRows)
    return TuckerRows(rows.core, rows.user_factor, rows.time_factor, rows.item_factor, pad_column=True)


def distributions(rows: Rows) -> list[list[dict[int, float]]]:
    """Return, for each row and position, the probability of each item, padding left out."""
    if isinstance(rows, HardRows):
        return [
            [{int(item): 1.0} for item in ids[:length]] for ids, length in zip(rows.item_ids, rows.lengths, strict=True)
        ]
    assert isinstance(rows, SoftRows)
    dense = rows.items().dense()
    ids = range(dense.first_id, dense.first_id + dense.probabilities.shape[2])
    return [
        [{item: p for item, p in zip(ids, position, strict=True) if item} for position in row]
        for row in dense.probabilities.tolist()
    ]


def slow_distances(rows: Rows, histories: Histories, left_out: list[int]) -> list[list[float]]:
    """Return the distance of each row to each user; infinite for the one left out."""
    found = []
    for row, excluded in zip(distributions(rows), left_out, strict=True):
        total = sum(p for position in row for p in position.values())
        to_users = []
        for user in range(histories.num_users):
            owned = set(training_events(histories, user))
            inside = sum(p for position in row for item, p in position.items() if item in owned)
            to_users.append(float("inf") if user == excluded else 1 - inside / total)
        found.append(to_users)
    return found


@pytest.mark.parametrize("block", [1, 700, 1 << 22])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_distances_equal_the_loop_over_users(kind: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy, "EVENTS_PER_BLOCK", block)
    monkeypatch.setattr(privacy, "NUMBERS_PER_BLOCK", 3 * (NUM_ITEMS + 1))  # three rows or positions at a time
    histories = random_histories(11, seed=4)
    rows = random_hard(7, seed=0) if kind == "hard" else random_soft(7)
    excluded = np.array([-1, 0, 10, 3, -1, 5, 2])
    found = nearness(rows, histories, NUM_ITEMS, left_out=excluded)
    expected = slow_distances(rows, histories, excluded.tolist())
    assert found.distances == pytest.approx([min(row) for row in expected], abs=1e-9)
    chosen = [row[user] for row, user in zip(expected, found.users.tolist(), strict=True)]
    assert chosen == pytest.approx([min(row) for row in expected], abs=1e-9)
    assert len(set(found.users.tolist())) > 2
    assert found.median == pytest.approx(np.median(found.distances))
    assert found.minimum == found.distances.min()


@pytest.mark.parametrize("rows", [padded_tucker(), examples_of_rows.make("tucker"), examples_of_rows.make("labelled")])
def test_distances_of_other_kinds_equal_the_loop(rows: Rows) -> None:
    histories = histories_of_lists([[1, 2, 3], [4, 5], [8, 9, 9, 9]], [[6]] * 3, [[7]] * 3)
    expected = slow_distances(rows, histories, [-1] * len(rows))
    found = nearness(rows, histories, examples_of_rows.V)
    assert found.distances == pytest.approx([min(row) for row in expected], abs=1e-6)


def test_a_distance_is_the_share_of_positions_whose_item_the_user_lacks() -> None:
    histories = of_training([1, 2, 3, 3], [4, 5], [6])
    found = nearness(hard([1, 4, 5, 4], [3, 7], [8, 9], [6, 6, 6]), histories, NUM_ITEMS)
    assert found.distances.tolist() == [0.25, 0.5, 1.0, 0.0]
    assert found.users.tolist() == [1, 0, -1, 2]


def test_held_out_events_are_nobodys() -> None:
    histories = histories_of_lists([[1, 2]], [[3]], [[4]])
    found = nearness(hard([3, 4], [2, 3]), histories, NUM_ITEMS)
    assert found.distances.tolist() == [1.0, 0.5]
    assert not found.copied.any()


@pytest.mark.parametrize("block", [1, 1 << 22])
def test_among_equally_near_users_the_shortest_history_counts_then_the_first(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privacy, "EVENTS_PER_BLOCK", block)
    histories = of_training([1, 2, 3, 4], [5, 5, 5, 5, 1, 2], [2, 1, 6], [1, 9])
    assert nearness(hard([1, 2]), histories, NUM_ITEMS).users.tolist() == [1]  # three items, as the third user has


def test_sharp_distributions_are_as_near_as_the_ids_they_name() -> None:
    histories = random_histories(9, seed=1)
    ids = random_hard(1, seed=3).item_ids
    keys = torch.eye(NUM_ITEMS, dtype=torch.float64)
    soft = LowRankRows(200 * keys[ids - 1], keys, torch.tensor([1.0]))
    rows = HardRows(ids, torch.tensor([ids.shape[1]]))
    one, other = (nearness(kind, histories, NUM_ITEMS) for kind in (soft, rows))
    assert one.distances == pytest.approx(other.distances)
    assert one.users.tolist() == other.users.tolist()
    assert likeliest(soft).item_ids.tolist() == ids.tolist()


def test_the_likeliest_items_leave_padding_out() -> None:
    rows = padded_tucker()
    dense = rows.items().dense()
    expected = dense.probabilities[:, :, 1:].argmax(2) + 1
    assert (dense.probabilities.argmax(2) == 0).any()  # padding wins somewhere
    assert likeliest(rows).item_ids.tolist() == expected.tolist()
    assert likeliest(rows).lengths.tolist() == [rows.length] * len(rows)


def text(events: list[int]) -> str:
    """Return events as a text in which a part is a contiguous part."""
    return "".join(f",{event}" for event in events) + ","


@pytest.mark.parametrize("block", [3, 1 << 22])
@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_copies_are_what_a_text_search_finds(block: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    train = [rng.integers(1, 4, rng.integers(0, 9)).tolist() for _ in range(4)]
    histories = histories_of_lists(train, [[1]] * 4, [[2, 1]] * 4)
    rows = [rng.integers(1, 4, rng.integers(2, 5)).tolist() for _ in range(6)]
    excluded = rng.integers(-1, 4, 6)
    expected = [
        any(text(row) in text(events) for user, events in enumerate(train) if user != excluded[index])
        for index, row in enumerate(rows)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(privacy, "EVENTS_PER_BLOCK", block)
        found = nearness(hard(*rows), histories, NUM_ITEMS, left_out=excluded)
    assert found.copied.tolist() == expected
    assert found.copied_share == pytest.approx(np.mean(expected))


def test_a_copy_lies_within_one_users_training_part_in_order_and_without_gaps() -> None:
    histories = of_training([1, 2, 3, 4], [5, 6, 7])
    rows = hard([1, 2, 3, 4], [2, 3], [6, 7], [4, 5], [3, 2], [1, 3], [4, NUM_ITEMS], [7, 8])
    assert nearness(rows, histories, NUM_ITEMS).copied.tolist() == [True] * 3 + [False] * 5


def test_soft_rows_are_copies_where_their_likeliest_items_are() -> None:
    rows = random_soft(3)
    sequences = likeliest(rows).item_ids.tolist()
    found = nearness(rows, of_training([9, *sequences[1], 4], [*sequences[2][:-1]]), NUM_ITEMS)
    assert found.copied.tolist() == [False, True, False]
    assert found.minimum > 0  # and no distribution is as near as its likeliest item


def test_real_rows_are_compared_with_other_users() -> None:
    histories = random_histories(12, seed=6)
    found = nearness_of_users(histories, NUM_ITEMS, length=4, count=12, rng=np.random.default_rng(0))
    drawn = np.random.default_rng(0).choice(12, 12, replace=False).tolist()
    rows = hard(*(training_events(histories, user)[-4:] for user in drawn))
    expected = slow_distances(rows, histories, drawn)
    assert found.distances == pytest.approx([min(row) for row in expected])
    assert not (found.users == drawn).any()
    own = nearness(rows, histories, NUM_ITEMS)
    assert own.copied.all()
    assert own.distances.max() == 0
    assert not found.copied.all()


def test_real_rows_are_drawn_once_each_by_the_generator_from_users_with_two_events() -> None:
    train = [[item] * 2 for item in range(1, 11)] + [[11], []]
    histories = of_training(*train)
    found = nearness_of_users(histories, NUM_ITEMS, length=2, count=100, rng=np.random.default_rng(0))
    assert found.distances.tolist() == [1.0] * 10  # nobody shares an item
    near = random_histories(40, seed=0)
    one, same, other = (
        nearness_of_users(near, NUM_ITEMS, length=5, count=9, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert one.users.tolist() == same.users.tolist() != other.users.tolist()
    assert len(one.users) == 9


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_rows_has_a_nearness_or_says_that_it_has_no_rows(kind: str) -> None:
    rows = examples_of_rows.make(kind)
    histories = histories_of_lists([[3, 1, 9, 2], [5, 4]], [[6]] * 2, [[7]] * 2)
    if len(rows) == 0:
        with pytest.raises(OptionError, match="rows: 'counts' hold no sequence"):
            nearness(rows, histories, examples_of_rows.V)
        return
    found = nearness(rows, histories, examples_of_rows.V)
    assert found.distances.shape == (len(rows),)
    assert ((found.distances >= 0) & (found.distances <= 1)).all()


def test_wrong_rows_and_options_are_named() -> None:
    histories = of_training([1, 2], [3])
    with pytest.raises(OptionError, match="rows: 8 is their last item, but the catalogue ends at 7"):
        nearness(hard([1, 8]), histories, 7)
    with pytest.raises(OptionError, match="rows: 20 is their last item"):
        nearness(random_soft(2), histories, 19)
    for wrong, named in (({"length": 1}, "length: 1"), ({"count": 0}, "count: 0")):
        options = {"length": 2, "count": 1} | wrong
        with pytest.raises(OptionError, match=named):
            nearness_of_users(histories, NUM_ITEMS, rng=np.random.default_rng(0), **options)
    with pytest.raises(OptionError, match="histories: 0 is the number of users"):
        nearness_of_users(of_training([1], [2]), NUM_ITEMS, length=2, count=1, rng=np.random.default_rng(0))


SCORES = arrays.arrays(float, st.integers(1, 9), elements=st.integers(-3, 3).map(float))


@given(SCORES, SCORES)
def test_the_auc_is_that_of_all_pairs(members: np.ndarray, others: np.ndarray) -> None:
    pairs = [1.0 if one > two else 0.5 if one == two else 0.0 for one in members for two in others]
    found = attack_auc(members, others, np.random.default_rng(0), resamples=50)
    assert found.auc.value == pytest.approx(np.mean(pairs))
    assert 0 <= found.auc.low <= found.auc.high <= 1
    assert (found.members, found.others) == (len(members), len(others))
    truth = np.r_[np.ones(len(members)), np.zeros(len(others))]
    assert found.auc.value == pytest.approx(roc_auc_score(truth, np.r_[members, others]))


def test_sides_that_do_not_overlap_or_all_tie_have_no_spread() -> None:
    low, high = np.arange(5.0), np.arange(10.0, 14.0)
    for members, others, expected in ((high, low, 1.0), (low, high, 0.0), (np.ones(4), np.ones(9), 0.5)):
        found = attack_auc(members, others, np.random.default_rng(0)).auc
        assert (found.low, found.value, found.high) == pytest.approx((expected, expected, expected))


def slow_resamples(members: np.ndarray, others: np.ndarray, *, paired: bool) -> list[float]:
    """Return the AUC of every resample of a small sample."""
    drawn = np.stack(np.meshgrid(*[np.arange(4)] * 4), -1).reshape(-1, 4)

    def auc(one: np.ndarray, two: np.ndarray) -> float:
        return float(((one[:, None] > two).mean() + (one[:, None] >= two).mean()) / 2)

    if paired:
        return [auc(members[users], others[users]) for users in drawn]
    return [auc(members[one], others[two]) for one in drawn for two in drawn]


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("part", [40, 1 << 22])
def test_the_interval_is_that_of_all_resamples(paired: bool, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy, "PART", part)
    members, others = np.array([1.0, 2.5, 3.0, 4.5]), np.array([0.5, 2.0, 3.5, 2.5])
    found = attack_auc(members, others, np.random.default_rng(0), paired=paired, resamples=8_000).auc
    expected = np.quantile(slow_resamples(members, others, paired=paired), [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.04)


@pytest.mark.parametrize("paired", [False, True])
def test_the_interval_holds_the_true_auc_about_95_times_in_a_hundred(paired: bool) -> None:
    rng, shift, shared = np.random.default_rng(11), 0.6, 0.8 if paired else 0.0
    truth = float(stats.norm.cdf(shift / np.sqrt(2)))
    held, widths = 0, []
    for _ in range(400):
        base = rng.normal(0, 1, 80)
        members, others = (np.sqrt(shared) * base + np.sqrt(1 - shared) * rng.normal(0, 1, 80) for _ in range(2))
        found = attack_auc(members + shift, others, rng, paired=paired, resamples=400).auc
        held += found.low <= truth <= found.high
        widths.append(found.high - found.low)
    assert 0.92 <= held / 400 <= 0.98
    if paired:  # a user's two scores are alike, which makes the AUC sharper than with two samples
        alone = attack_auc(members + shift, others, rng, resamples=400).auc
        assert np.mean(widths) < 0.7 * (alone.high - alone.low)


def test_scores_that_cannot_be_compared_are_refused() -> None:
    fine, rng = np.array([1.0, 2.0]), np.random.default_rng(0)
    for wrong in (np.array([1.0, np.nan]), np.array([np.inf]), np.array([])):
        with pytest.raises(InputError, match=r"member scores, \d finite"):
            attack_auc(wrong, fine, rng)
        with pytest.raises(InputError, match=r"other scores, \d finite"):
            attack_auc(fine, wrong, rng)
    with pytest.raises(InputError, match="2 members and 3 others cannot be paired"):
        attack_auc(fine, np.arange(3.0), rng, paired=True)
    with pytest.raises(OptionError, match="resamples: 0"):
        attack_auc(fine, fine, rng, resamples=0)


def test_members_are_last_training_events_and_others_the_next_events_of_the_same_users(histories: Histories) -> None:
    member, other = membership_cases(histories, np.random.default_rng(0))
    rows = np.arange(2)
    assert member.users.tolist() == other.users.tolist() == [0, 1]  # the others have too few training events
    assert member.targets(rows).tolist() == [7, 3]
    assert other.targets(rows).tolist() == [9, 4]
    before = [cases.histories(rows, 4)[0].ids.tolist() for cases in (member, other)]
    assert before == [[[3, 4, 5, 6], [3, 0, 0, 0]], [[4, 5, 6, 7], [3, 3, 0, 0]]]
    assert member.seen(rows, future=True)[1].tolist() == [1, 2, 3, 4, 5, 6, 7, 9, 2, 10, 3, 3, 4, 5]


def test_some_users_are_drawn_for_the_attack() -> None:
    histories = random_histories(30, seed=0)
    one, same, other = (
        membership_cases(histories, np.random.default_rng(seed), users=8)[0].users.tolist() for seed in (1, 1, 2)
    )
    assert one == same != other
    assert len(set(one)) == 8
    with pytest.raises(OptionError, match="users: 0"):
        membership_cases(histories, np.random.default_rng(0), users=0)
    with pytest.raises(InputError, match="nothing to tell apart"):
        membership_cases(histories_of_lists([[1, 2], [3]], [[], [4]], [[5], [6]]), np.random.default_rng(0))


@pytest.mark.parametrize("block", [1, 4, 100])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_likelihoods_equal_the_softmax_of_one_history_at_a_time(
    name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recdistill.evaluation.privacy.CASES_PER_BATCH", 2)
    model = examples.make(name)
    histories = histories_of_lists([[1, 2, 3, 4, 5, 6, 1], [2, 2], [6, 3, 5]], [[4], [1], [2]], [[1]] * 3)
    for cases, ends in zip(membership_cases(histories, np.random.default_rng(0)), (-1, None), strict=True):
        found = log_likelihoods(model, cases, block=block)
        for row, user in enumerate(cases.users.tolist()):
            before = training_events(histories, user)[:ends][-model.max_seq_len :]
            with torch.no_grad():
                hidden = model.represent(HardItems(torch.tensor([before])), torch.tensor([len(before)]))[0]
                logits = model.item_table[1:] @ hidden
            target = int(cases.targets(np.array([row])))
            assert found[row] == pytest.approx(float(logits.log_softmax(0)[target - 1]), abs=1e-9)


def test_a_model_that_is_not_finite_is_an_error() -> None:
    model = sasrec()
    with torch.no_grad():
        model.item_table[7] = float("nan")
    with pytest.raises(NumericalError, match="log-likelihood is not finite"):
        membership_attack(model, random_histories(10, seed=0), np.random.default_rng(0))
    with pytest.raises(OptionError, match="block: 0"):
        log_likelihoods(sasrec(), membership_cases(random_histories(5, seed=0), np.random.default_rng(0))[0], block=0)


def attacked(model: Recommender) -> privacy.Attack:
    return membership_attack(model, random_histories(60, seed=2), np.random.default_rng(0), resamples=200)


def test_the_attack_finds_a_model_that_knows_training_events_and_not_one_that_knows_nothing() -> None:
    popularity = MODELS["popularity"](NUM_ITEMS, 8, generator=torch.Generator())
    nothing = attacked(popularity)
    assert (nothing.auc.low, nothing.auc.value, nothing.auc.high) == pytest.approx((0.5, 0.5, 0.5))
    popularity.count(torch.from_numpy(random_histories(60, seed=2).train_counts(NUM_ITEMS)).float())
    assert attacked(popularity).auc.value == 1.0  # the held-out items occur in no training part
    assert (nothing.members, nothing.others) == (60, 60)


def test_the_attack_pairs_the_two_events_of_a_user() -> None:
    histories = random_histories(60, seed=2, held_out=(3, 20))
    found = membership_attack(sasrec(), histories, np.random.default_rng(5), users=40, resamples=300)
    rng = np.random.default_rng(5)
    member, other = (log_likelihoods(sasrec(), cases) for cases in membership_cases(histories, rng, users=40))
    assert found == attack_auc(member, other, rng, paired=True, resamples=300)
    assert found.members == 40
