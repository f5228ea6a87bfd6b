"""Folders that commands read and write: what is in one, whether a result may go there, where state and teachers lie."""

import os
import tempfile
from pathlib import Path
from typing import Any

from recdistill.cli.messages import say
from recdistill.errors import ArtifactError, InputError
from recdistill.storage import read_json, refuse_existing, sha256_of

HEADERS = ("model.json", "trajectory.json", "manifest.json", "stream.json", "clicks.json")
KINDS = {
    "recdistill-model": "model",
    "recdistill-trajectory": "teacher",
    "recdistill-prepared": "prepared dataset",
    "recdistill-distilled": "distilled dataset",
    "recdistill-stream": "memory of clicks",
    "recdistill-clicks": "export of clicks",
    "recdistill-click-model": "model of clicks",
}
MADE_BY = {
    "model": "train",
    "prepared dataset": "prepare",
    "distilled dataset": "distill",
    "teacher": "distill",
    "memory of clicks": "stream",
    "export of clicks": "export",
    "model of clicks": "train",
}


def kind_of(folder: Path) -> str | None:
    """Return what recdistill wrote into a folder, or ``None`` when it wrote nothing there."""
    for path in (folder / name for name in HEADERS):
        try:
            header = read_json(path)
        except (ArtifactError, OSError):
            continue
        if isinstance(header, dict) and header.get("format") in KINDS:
            return KINDS[header["format"]]
    return None


def named(kind: str) -> str:
    """Return a kind of folder with its article."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def require_kind(name: str, folder: Path, *wanted: str) -> None:
    """Raise when the argument ``name`` is a folder that holds something else than is ``wanted``.

    A folder in which nothing is recognised is left to the function that reads it.

    Raises:
        ArtifactError: it does not exist, is a file, or holds another kind of result.
    """
    asked = " or ".join(named(kind) for kind in wanted)
    commands = " or ".join(dict.fromkeys(f"recdistill {MADE_BY[kind]}" for kind in wanted))
    fix = f"{name} must be {asked}, written by {commands}"
    if not folder.is_dir():
        raise ArtifactError("is a file" if folder.is_file() else "does not exist", fix=fix, path=folder)
    found = kind_of(folder)
    if found is not None and found not in wanted:
        raise ArtifactError(f"is {named(found)}", fix=fix, path=folder)


def check_out(out: Path, kind: str, *, overwrite: bool) -> None:
    """Raise when a result cannot be written at ``out``, before anything takes time.

    Raises:
        InputError: it exists and may not be replaced, or its folder cannot be written.
    """
    refuse_existing(out, replace=overwrite)
    if out.is_dir() and any(out.iterdir()) and kind_of(out) != kind:
        found = kind_of(out)
        told = f"holds {named(found)}" if found else "holds files that recdistill did not write"
        raise InputError(f"{out}: {told}, and --overwrite replaces only {named(kind)}; choose another name")
    check_writable(out)


def beside(folder: Path, ending: str) -> Path:
    """Return the path beside a folder that has its name and an ending."""
    named = folder.resolve() if folder.name in ("", "..") else folder
    return named.parent / f"{named.name}{ending}"


def check_writable(out: Path) -> None:
    """Raise when the folder that ``out`` would lie in cannot be written.

    Raises:
        InputError: it cannot.
    """
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".recdistill-", dir=parent):
            pass
    except OSError as error:
        told = f"cannot be written, for {parent} takes no folder ({error.strerror})"
        raise InputError(f"{out}: {told}; choose another place") from None


def cache_folder(given: Path | None) -> Path:
    """Return where teachers are kept: the given folder, else $RECDISTILL_CACHE, else the user's cache."""
    if given is not None:
        return given
    if os.environ.get("RECDISTILL_CACHE"):
        return Path(os.environ["RECDISTILL_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recdistill"


def state_file(out: Path, *settings: Any, resume: bool) -> Path:
    """Return the file for the state of an unfinished run that writes ``out`` with exactly these settings.

    Raises:
        InputError: an unfinished run lies there and ``resume`` is false.
    """
    path = out.parent / f".{out.name}.{sha256_of(*settings)[:12]}.state"
    if path.exists() and not resume:
        raise InputError(
            f"{path}: is the state of an unfinished run with these settings; pass --resume to continue it, "
            "or delete the file to begin anew"
        )
    if resume and not path.exists():
        say("no unfinished run with these settings; starting from the beginning")
    return path
