"""Shapes and types of the package are checked in every test run; fixtures shared by several folders."""

from jaxtyping import install_import_hook

install_import_hook("recdistill", "reference.checked")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from recdistill.data.development import Development  # noqa: E402
from recdistill.data.sequences import Histories, evaluation_cases, windows  # noqa: E402
from recdistill.evaluation.protocols import evaluate  # noqa: E402
from recdistill.rng import Streams  # noqa: E402
from recdistill.training.fit import TrainingRecipe  # noqa: E402
from recdistill.training.trajectory import Trajectory, record_trajectory  # noqa: E402
from reference.tiny import NUM_ITEMS, development, histories_of_lists, random_histories, sasrec  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture
def histories() -> Histories:
    """Four users: an ordinary one, one with two training events, one with a single one, one with none."""
    return histories_of_lists(
        train=[[1, 2, 3, 4, 5, 6, 7], [3, 3], [8], []],
        valid=[[9], [4, 5], [], [1, 2]],
        test=[[2, 10], [], [11], [3]],
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture(scope="session")
def train() -> Development:
    """Thirty users and twenty items; items 19 and 20 occur in no training part."""
    return development(random_histories(30, seed=3))


@pytest.fixture(scope="session")
def teacher(train: Development, tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    """A SASRec trained for three epochs on ``train``."""
    cases = evaluation_cases(train.histories, "valid")
    return record_trajectory(
        sasrec(max_seq_len=8, dropout=0.2),
        windows(train.histories, 8),
        TrainingRecipe(epochs=3, steps_per_epoch=5, batch_size=16, learning_rate=0.01, patience=3),
        Streams(0).child("teacher"),
        tmp_path_factory.mktemp("teacher") / "trajectory",
        validate=lambda model: evaluate(model, cases).metrics()["NDCG@10"],
        about={"items": NUM_ITEMS},
    )
