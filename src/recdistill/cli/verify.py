"""recdistill verify."""

from dataclasses import asdict
from pathlib import Path

from recdistill.certificate.verify import verify as verify_certificate
from recdistill.cli.bars import progress_bars
from recdistill.cli.folders import require_kind
from recdistill.cli.messages import print_json
from recdistill.cli.options import Flag, Seed


def verify(distilled: Path, prepared: Path, /, *, seed: Seed | None = None, json: Flag = False) -> None:
    """Check the certificate of a distilled dataset; exit with 3 when it does not hold.

    Compares the certificate with its checksum, with itself and with the dataset, and then trains the stated model on
    the rows once more: the score must lie in the interval that the certificate states for one training.

    Parameters
    ----------
    distilled
        Distilled dataset with a certificate, written by recdistill certify.
    prepared
        The prepared dataset that it was made from.
    seed
        Seed of the training; the first of the certificate when left out, which gives the same digits on the same
        machine. A true interval misses another seed one time in 20.
    json
        Print the result as JSON.
    """
    require_kind("DISTILLED", distilled, "distilled dataset")
    require_kind("PREPARED", prepared, "prepared dataset")
    with progress_bars() as progress:
        found = verify_certificate(distilled, prepared, seed=seed, progress=progress)
    if json:
        print_json(asdict(found) | {"stated": found.stated.model_dump()})
        return
    digits = {True: ", digit by digit what is stated for this seed", False: "", None: ""}[found.repeated]
    print(
        f"holds: {found.judge} trained again with seed {found.seed} scores {found.metric} {found.value:.5f}, stated is "
        f"{found.stated.low:.5f} to {found.stated.high:.5f}{digits}"
    )
