"""What the tests of certificates examine: a tiny panel, how it is trained, and what a finished examination is."""

from dataclasses import dataclass
from pathlib import Path

from recdistill.certificate.record import Certificate
from recdistill.certificate.trainings import Examination, Trained
from recdistill.data.prepared import PrepareSpec, prepare
from recdistill.study.cells import ModelSpec
from recdistill.training.fit import TrainingRecipe
from reference.logs import write_ring

SMALL = {"embedding_dim": 8, "num_blocks": 1, "num_heads": 1, "inner_dim": 8}
MODELS = (
    ModelSpec(name="small", model="sasrec", config=SMALL),
    ModelSpec(name="gru", model="gru4rec", config={"embedding_dim": 8, "hidden_dim": 8}),
    ModelSpec(name="wide", model="sasrec", config=SMALL | {"inner_dim": 32}),
    ModelSpec(name="counts", model="popularity"),
)
RECIPE = TrainingRecipe(epochs=3, steps_per_epoch=4, batch_size=16, learning_rate=0.01, patience=3)


@dataclass(frozen=True)
class Made:
    """An examination that is finished, and its certificate."""

    exam: Examination
    datasets: list[Trained]
    certificate: Certificate


def prepared_ring(folder: Path, seed: int) -> Path:
    prepare(write_ring(folder / f"log-{seed}.csv", users=60, seed=seed), folder / f"prepared-{seed}", PrepareSpec())
    return folder / f"prepared-{seed}"
