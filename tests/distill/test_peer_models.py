"""Peers: each family is trained once and kept. Not proved: that peers are good models."""

from pathlib import Path
from typing import Any

import pytest

from recdistill.data.development import Development
from recdistill.data.sequences import evaluation_cases
from recdistill.distill.base import RunContext
from recdistill.distill.peers import FAMILIES, Peer, peer_cache, train_peers
from recdistill.distill.teacher import TeacherSpec, make_model, teach
from recdistill.errors import OptionError
from recdistill.evaluation.protocols import evaluate
from recdistill.rng import Streams
from recdistill.training.fit import TrainingRecipe
from reference.tiny import NUM_ITEMS

RECIPE = TrainingRecipe(epochs=3, steps_per_epoch=2, batch_size=16, learning_rate=0.01)
TWO = ("gru4rec_64", "sasrec_32")


def trained(train: Development, cache: Path, families: tuple[str, ...] = TWO, **context: Any) -> list[Peer]:
    return train_peers(train, families, 6, RECIPE, 4, cache, RunContext(**context))


def test_a_peer_is_the_best_model_of_its_training(train: Development, tmp_path: Path) -> None:
    cases = evaluation_cases(train.histories, "valid")
    peers = trained(train, tmp_path)
    assert [(peer.family, peer.model.name, peer.model.max_seq_len) for peer in peers] == [
        ("gru4rec_64", "gru4rec", 6),
        ("sasrec_32", "sasrec", 6),
    ]
    for peer in peers:
        assert peer.model.config.items() >= FAMILIES[peer.family].config.items()
        assert peer.score == pytest.approx(evaluate(peer.model, cases).metrics()["NDCG@10"])
        scores = [evaluate(peer.trajectory.model(epoch), cases).metrics()["NDCG@10"] for epoch in (1, 2, 3)]
        assert peer.score == pytest.approx(max(scores))


def test_peers_in_the_cache_are_not_trained_again(train: Development, tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []
    one = trained(train, tmp_path, progress=lambda *args: told.append(args))
    count = len(told)
    assert count >= 6
    again = trained(train, tmp_path, TWO[::-1], progress=lambda *args: told.append(args))
    assert len(told) == count
    assert [peer.trajectory.folder for peer in again] == [peer.trajectory.folder for peer in one[::-1]]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_peer_is_the_teacher_of_the_same_settings(train: Development, tmp_path: Path) -> None:
    """So that a teacher in the cache serves as the peer of its family."""
    (peer,) = trained(train, tmp_path, TWO[:1])
    family = FAMILIES["gru4rec_64"]
    spec = TeacherSpec(model=family.model, config=family.config, max_seq_len=6, recipe=RECIPE)
    assert teach(train, spec, 4, tmp_path) == peer.trajectory


def test_an_unknown_family_is_refused_by_name(train: Development, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"families: 'gru4rec' is not known \(did you mean 'gru4rec_64'\?\)"):
        trained(train, tmp_path, ("gru4rec",))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_has_the_model_and_the_width_of_its_name(name: str) -> None:
    kind, width = name.rsplit("_", 1)
    model = make_model(FAMILIES[name].model, NUM_ITEMS, 6, FAMILIES[name].config, Streams(0))
    assert (model.name, model.item_width) == (kind, int(width))


def test_peers_are_kept_where_the_run_keeps_models(tmp_path: Path) -> None:
    with peer_cache(RunContext(cache=tmp_path / "cache")) as folder:
        assert folder == tmp_path / "cache"
        folder.mkdir()
    assert folder.exists()


@pytest.mark.parametrize("fails", [False, True])
def test_without_a_cache_no_folder_stays(fails: bool) -> None:
    folder = Path()
    try:
        with peer_cache(RunContext()) as folder:
            (folder / "peer").mkdir()
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert folder.name.startswith("recdistill-peers-")
    assert not folder.exists()
