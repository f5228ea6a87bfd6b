"""What is computed from the texts of a catalogue once: tokens, states below the trained layers, or whole vectors.

Rows of different lengths lie one after another in one array, memory-mapped where there is a cache folder, so that a
step reads only the items that it encodes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.lib.format import open_memmap
from torch import Tensor

from recdistill.errors import ArtifactError
from recdistill.models.encoders import PretrainedEncoder, padded, pool, states_below
from recdistill.progress import SILENT, Progress
from recdistill.storage import atomic_folder, read_json, sha256, sha256_of, write_json

TEXTS_PER_BATCH = 256
_FILES = ("values.npy", "offsets.npy")
_VERSION = 1


@dataclass(frozen=True)
class ItemStates:
    """Rows of one array, one row per item.

    Args:
        values: all tokens (n,), states (n, H) or vectors (V, H), item after item.
        offsets: item ``i`` owns ``values[offsets[i - 1]:offsets[i]]``.
    """

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        """Return the number of items, V."""
        return len(self.offsets) - 1

    @property
    def longest(self) -> int:
        """Length of the longest row, in tokens."""
        return int(np.diff(self.offsets).max(initial=0))

    def rows(self, items: Int[Tensor, " n"]) -> tuple[Tensor, Bool[Tensor, "n L"]]:
        """Return the rows of some items (ids 1 to V), filled up with 0 on the right, and which entries are real."""
        index = items.cpu().numpy() - 1
        start, stop = self.offsets[index], self.offsets[index + 1]
        places = start[:, None] + np.arange(int((stop - start).max(initial=1)))
        real = places < stop[:, None]
        found = np.asarray(self.values[np.minimum(places, len(self.values) - 1)])
        found[~real] = 0
        return torch.from_numpy(found), torch.from_numpy(real)


def states_of(
    encoder: PretrainedEncoder,
    texts: Sequence[str],
    *,
    max_tokens: int,
    layers: int | None,
    pooling: str,
    cache: Path | None,
    progress: Progress = SILENT,
) -> ItemStates:
    """Return what the trained part of an encoder reads of every text.

    Args:
        encoder: pretrained.
        texts: one per item.
        max_tokens: longer texts are cut.
        layers: last layers that are trained: their inputs are kept; 0 for none, so that the pooled vectors are kept;
            ``None`` for all, so that the tokens are.
        pooling: of the vectors.
        cache: folder, where the result is kept under a hash of all this; ``None`` keeps it in memory.
        progress: told after every batch of texts.

    Raises:
        OptionError: ``max_tokens`` does not fit the encoder.
        InputError: the tokenizer does not fit the encoder, or the encoder cannot be cut.
        ArtifactError: what lies in the cache is damaged.
    """
    reading = _Reading(encoder, texts, max_tokens, layers, pooling, progress)
    if cache is None:
        return reading.read(np.empty)
    key = sha256_of(_VERSION, encoder.fingerprint, list(texts), max_tokens, layers, pooling if layers == 0 else None)
    folder = cache / f"texts-{key[:16]}"
    if not (folder / "texts.json").exists():
        with atomic_folder(folder, replace=True) as temporary:
            made = reading.read(partial(open_memmap, temporary / _FILES[0], "w+"))
            np.save(temporary / _FILES[1], made.offsets, allow_pickle=False)
            del made
            files = {name: sha256(temporary / name) for name in _FILES}
            write_json(temporary / "texts.json", {"encoder": encoder.name, "items": len(texts), "files": files})
    return _opened(folder, len(texts))


def _opened(folder: Path, num_items: int) -> ItemStates:
    files = read_json(folder / "texts.json").get("files", {})
    for name in _FILES:
        if not (folder / name).exists() or sha256(folder / name) != files.get(name):
            raise ArtifactError("is not what was written there", fix="remove the folder", path=folder / name)
    values, offsets = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in _FILES)
    if len(offsets) != num_items + 1:
        raise ArtifactError(f"holds {len(offsets) - 1} items, not {num_items}", fix="remove the folder", path=folder)
    return ItemStates(values, np.asarray(offsets))


@dataclass(frozen=True)
class _Reading:
    """One reading of all texts, see :func:`states_of`."""

    encoder: PretrainedEncoder
    texts: Sequence[str]
    max_tokens: int
    layers: int | None
    pooling: str
    progress: Progress

    @torch.no_grad()
    def read(self, make: Callable[..., np.ndarray]) -> ItemStates:
        """Return the rows of all items, in an array that ``make(dtype=, shape=)`` gives."""
        tokens = self.encoder.tokenize(self.texts, self.max_tokens)
        lengths = [1 if self.layers == 0 else len(ids) for ids in tokens]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        total = int(offsets[-1])
        if self.layers is None:
            values = make(dtype=np.int32, shape=(total,))
            values[:] = np.concatenate([np.array(ids, dtype=np.int32) for ids in tokens])
            return ItemStates(values, offsets)
        values = make(dtype=np.float32, shape=(total, self.encoder.width))
        order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))  # like lengths waste no padding
        for start in range(0, len(order), TEXTS_PER_BATCH):
            places = order[start : start + TEXTS_PER_BATCH]
            for place, row in zip(places, self._rows([tokens[place] for place in places]), strict=True):
                values[offsets[place] : offsets[place + 1]] = row
            self.progress("read the texts", start + len(places), len(order))
        return ItemStates(values, offsets)

    def _rows(self, tokens: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
        assert self.layers is not None
        ids, mask = padded(tokens)
        states = states_below(self.encoder.model, self.layers, ids, mask)
        if self.layers == 0:
            yield from pool(states, mask, self.pooling).unsqueeze(1).numpy()
        else:
            yield from (row[: len(some)].numpy() for row, some in zip(states, tokens, strict=True))
