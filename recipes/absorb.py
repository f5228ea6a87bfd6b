"""Take over the teachers and artifacts of ``td3_ml100k``, so that no grid makes them again.

    python -m recipes.absorb

Seeds, settings and data are the same. Cells are not taken over: they lack the ranks of users, without which nothing can
be compared, and a student takes seconds. Nor are seconds and peaks: several jobs shared a process there.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from recdistill.data.distilled import DistilledDataset, read_manifest
from recdistill.data.prepared import PreparedDataset
from recdistill.distill.base import Distiller
from recdistill.errors import InputError
from recipes.cells import selector
from recipes.datasets import ML_100K, Dataset
from recipes.jobs import Artifact
from recipes.places import Place, Prepare
from recipes.plans import Method
from recipes.record import RUNS, as_json

BUDGET = ML_100K.main
CONTROLS = ("random", "random_soft", "longest", "most_recent")
FLOORS = ("popularity", "untrained")


def methods(dataset: Dataset) -> list[Distiller]:
    """Return what the former recipe made and the grids still ask for."""
    made: list[Distiller] = [dataset.td3(BUDGET)]
    return made + [selector(name, BUDGET) for name in CONTROLS] + [selector(name, (0, 0)) for name in FLOORS]


def absorb(old: Path, dataset: Dataset, distillers: Sequence[Distiller]) -> list[str]:
    """Copy what ``old`` holds to the places of ``dataset``; return the keys of what is new there.

    Args:
        old: folder of the former recipe, with ``prepared`` and ``seed-<k>``.
        dataset: prepared already.
        distillers: with the settings that are wanted; an artifact of other settings is left alone.

    Raises:
        InputError: the two were not prepared alike.
    """
    if PreparedDataset.open(old / "prepared").hash != PreparedDataset.open(dataset.folder / "prepared").hash:
        raise InputError(f"{old}: was prepared in another way than {dataset.name}; nothing can be taken over")
    taken = []
    for folder in sorted(old.glob("seed-*")):
        place = Place(dataset, BUDGET[1], int(folder.name.removeprefix("seed-")))
        for teacher in (folder / "cache").glob("teacher-*"):
            target = place.folder / "teachers" / teacher.name
            if (teacher / "trajectory.json").exists() and not target.exists():
                shutil.copytree(teacher, target)
                taken.append(f"{place.key}/{teacher.name}")
        artifacts = [Artifact(place, Method(distiller)) for distiller in distillers]
        taken += [job.key for job in artifacts if take_artifact(folder / job.plan.name, job)]
    return taken


def take_artifact(old: Path, job: Artifact) -> bool:
    """Copy an artifact, unless its place is taken or it was made with other settings; return whether it was copied."""
    if job.done() or not (old / "manifest.json").exists():
        return False
    manifest, wanted = read_manifest(old), as_json(job.settings())
    stored = {"method": manifest.method, **manifest.parameters}
    if any(wanted[name] != value for name, value in stored.items() if name in wanted):
        return False
    shutil.copytree(old, job.folder, dirs_exist_ok=True)
    job.describe(DistilledDataset.load(job.folder), start_mb=None, measured=False)
    return True


def main() -> None:
    """Take over everything that fits."""
    job = Prepare(ML_100K)
    job.path.parent.mkdir(parents=True, exist_ok=True)
    if not job.done():
        job.run(lambda stage, done, total, note="": None)
    for key in absorb(RUNS / "td3_ml100k", ML_100K, methods(ML_100K)):
        print(key)


if __name__ == "__main__":
    main()
