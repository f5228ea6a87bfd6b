"""Text encoders of the Hugging Face library, cut at a layer.

What lies below the trained layers never changes, so that it is computed once for every item and kept
(:mod:`~recdistill.models.item_states`); what lies above is a module of its own, which reads these states. Any encoder
or decoder whose layers form one list can be cut so; that the two parts give what the whole gives is checked when it is
cut.

Encoders are used without dropout and with attention written out, because the fused kernels have no double backward.
"""

import copy
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from recdistill.errors import InputError, OptionError, RecdistillWarning, choose
from recdistill.storage import sha256

POOLINGS = {"mean": "mean over the tokens", "cls": "first token", "last": "last token"}
"""How the states of a text's tokens become one vector. Decoders are read at the last token or as a mean."""

INSTALL = "install it with: pip install 'recdistill[text]'"
_TOLERANCE = 1e-4
_PROBE = ("a text", "another text, and a longer one")


@dataclass(frozen=True)
class PretrainedEncoder:
    """An encoder and its tokenizer, as they were loaded.

    Args:
        name: folder or hub name that was asked for.
        model: the whole encoder, in evaluation mode.
        tokenizer: of the Hugging Face library.
        fingerprint: SHA-256 of its files, or of name and revision where they lie in the library's own cache.
    """

    name: str
    model: Any
    tokenizer: Any
    fingerprint: str

    @property
    def width(self) -> int:
        """Numbers in a hidden state."""
        return int(self.model.config.hidden_size)

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(layers_of(self.model))

    @property
    def longest(self) -> int:
        """Most tokens that it reads."""
        return min(int(self.model.config.max_position_embeddings), int(self.tokenizer.model_max_length))

    def tokenize(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Return the token ids of every text, cut to ``max_tokens``; warns where a text was longer.

        Raises:
            OptionError: ``max_tokens`` is more than the encoder reads.
            InputError: the tokenizer's vocabulary is larger than the encoder's table.
        """
        if not 3 <= max_tokens <= self.longest:
            raise OptionError("max_tokens", max_tokens, fix=f"must lie in 3 .. {self.longest}, what {self.name} reads")
        with quiet_library():
            whole = self.tokenizer(list(texts), add_special_tokens=True, truncation=False, verbose=False)["input_ids"]
            cut = self.tokenizer(list(texts), add_special_tokens=True, truncation=True, max_length=max_tokens)
        self._check_vocabulary(whole, texts)
        lengths = [len(ids) for ids in whole]
        long = [index for index, length in enumerate(lengths) if length > max_tokens]
        if long:
            worst = max(long, key=lengths.__getitem__)
            warnings.warn(
                f"{len(long):,} of {len(texts):,} texts have more than max_tokens {max_tokens} tokens and are cut; the "
                f"longest has {lengths[worst]}: {texts[worst][:60]!r}",
                RecdistillWarning,
                stacklevel=2,
            )
        return [list(ids) for ids in cut["input_ids"]]

    def _check_vocabulary(self, tokens: Sequence[Sequence[int]], texts: Sequence[str]) -> None:
        rows = self.model.get_input_embeddings().num_embeddings
        for ids, text in zip(tokens, texts, strict=True):
            if not ids:
                raise InputError(f"{self.name}: its tokenizer makes nothing of the text {text[:60]!r}; leave it out")
            if max(ids) >= rows:
                raise InputError(
                    f"{self.name}: the tokenizer gives token {max(ids)} for {text[:60]!r}, and the encoder knows "
                    f"{rows} tokens; they do not belong together: use the tokenizer of that encoder"
                )


@lru_cache(maxsize=2)
def load_encoder(name: str) -> PretrainedEncoder:
    """Return a pretrained encoder from a local folder or by its hub name; nothing of it is ever changed.

    Args:
        name: a folder with ``config.json``, weights as safetensors and a tokenizer; or a name on the Hugging Face hub,
            which is downloaded unless it lies in the library's cache.

    Raises:
        InputError: there is no such encoder, the folder holds none, or the library is not installed.
    """
    if not name:
        raise OptionError("encoder", name, fix="names no text encoder; give a folder, or a name on the hub")
    transformers = _library()
    folder = Path(name)
    local = folder.exists()
    if local:
        _check_folder(folder)
    try:
        with quiet_library():
            tokenizer = transformers.AutoTokenizer.from_pretrained(name)
            model = transformers.AutoModel.from_pretrained(
                name, attn_implementation="eager", use_safetensors=True, dtype=torch.float32
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        if local:
            raise InputError(f"{name}: is no text encoder that can be read ({first}); give another folder") from None
        raise InputError(
            f"encoder: {name!r} is no folder, and was not found on the Hugging Face hub ({first}); give the folder of "
            "an encoder on this machine"
        ) from None
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return PretrainedEncoder(name, model.eval(), tokenizer, _fingerprint(folder, model) if local else _hash_of(model))


def _library() -> Any:
    try:
        import transformers
    except ImportError:
        raise InputError(f"text models need the package transformers; {INSTALL}") from None
    return transformers


@contextmanager
def quiet_library() -> Iterator[None]:
    """Let the library say nothing of its own: what matters is said in one line here."""
    logging = _library().utils.logging
    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; an encoder is a folder with config.json, weights and a tokenizer")
    if not (folder / "config.json").exists():
        raise InputError(f"{folder}: is no encoder, it has no config.json; give a folder of the Hugging Face library")
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder}: has no weights as safetensors; convert them with save_pretrained (nothing else is read, "
            "because other formats may execute code)"
        )
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.txt", "tokenizer.model", "vocab.json")):
        raise InputError(f"{folder}: has no tokenizer (tokenizer.json or vocab.txt); put that of the encoder there")


def _fingerprint(folder: Path, model: Any) -> str:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".txt", ".model"))
    told = "".join(f"{path.name} {sha256(path)}\n" for path in files)
    return hashlib.sha256(told.encode()).hexdigest()


def _hash_of(model: Any) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def layers_of(model: nn.Module) -> nn.ModuleList:
    """Return the list of a model's layers: the longest list of modules of one class.

    Raises:
        InputError: there is none.
    """
    found = model.get_submodule(_name_of_layers(model))
    assert isinstance(found, nn.ModuleList)
    return found


def _name_of_layers(model: nn.Module) -> str:
    lists = {
        name: len(part)
        for name, part in model.named_modules()
        if isinstance(part, nn.ModuleList) and len({type(one) for one in part}) == 1
    }
    if not lists:
        raise InputError(
            f"{type(model).__name__}: has no list of layers, so that it cannot be cut; give another encoder"
        )
    return max(lists, key=lists.__getitem__)


class _Layers(nn.Module):
    """Layers of an encoder, always in evaluation mode: dropout comes from outside or not at all."""

    def train(self, mode: bool = True) -> "_Layers":
        """Stay in evaluation mode."""
        super().train(False)
        return self


class UpperLayers(_Layers):
    """The last layers of an encoder, which read the states below them.

    Args:
        model: the whole encoder; what is needed of it is copied.
        count: how many layers, at least 1.
    """

    def __init__(self, model: Any, count: int) -> None:
        super().__init__()
        below = len(layers_of(model)) - count
        replaced: dict[int, Any] = {id(layer): nn.Identity() for layer in layers_of(model)[:below]}
        embeddings = getattr(model, "embeddings", None)
        if isinstance(embeddings, nn.Module):
            replaced[id(embeddings)] = _GivenStates()
        else:  # a decoder hands given states on by itself
            replaced[id(model.get_input_embeddings())] = nn.Identity()
        made = copy.deepcopy(model, replaced)
        del made.get_submodule(_name_of_layers(model))[:below]
        if getattr(made.config, "layer_types", None):
            made.config.layer_types = list(made.config.layer_types)[below:]
        made.config.num_hidden_layers = count
        self.model = _without_pooler(made)

    def forward(self, states: Float[Tensor, "n L H"], mask: Bool[Tensor, "n L"]) -> Float[Tensor, "n L H"]:
        """Return the states after the last layer."""
        return last_states(self.model, mask, inputs_embeds=states)


class _GivenStates(nn.Module):
    """In place of the embeddings of an encoder: hands on the states that it is given, by place or by name."""

    def forward(self, *places: Any, **names: Any) -> Tensor:
        given = (*places, *names.values())
        return next(value for value in given if isinstance(value, Tensor) and value.is_floating_point())


class AllLayers(_Layers):
    """A copy of a whole encoder, which reads tokens."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = _without_pooler(copy.deepcopy(model))

    def forward(self, tokens: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"]) -> Float[Tensor, "n L H"]:
        """Return the states after the last layer."""
        return last_states(self.model, mask, input_ids=tokens)


def _without_pooler(model: Any) -> Any:
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


def last_states(model: Any, mask: Bool[Tensor, "n L"], **inputs: Tensor) -> Float[Tensor, "n L H"]:
    """Return what an encoder says of every token of right-padded texts."""
    found: Tensor = _read(model, mask, **inputs).last_hidden_state
    return found


def _read(model: Any, mask: Bool[Tensor, "n L"], **inputs: Any) -> Any:
    options = {"use_cache": False} if getattr(model.config, "use_cache", False) else {}
    return model(attention_mask=mask.long(), **options, **inputs)


def states_below(model: Any, count: int, tokens: Int[Tensor, "n L"], mask: Bool[Tensor, "n L"]) -> Tensor:
    """Return what the last ``count`` layers of a whole encoder read; its last states for a count of 0."""
    if count == 0:
        return last_states(model, mask, input_ids=tokens)
    found = _read(model, mask, input_ids=tokens, output_hidden_states=True).hidden_states
    states: Tensor = found[len(layers_of(model)) - count]
    return states


def pool(states: Float[Tensor, "n L H"], mask: Bool[Tensor, "n L"], how: str) -> Float[Tensor, "n H"]:
    """Return one vector per text.

    Raises:
        OptionError: the pooling is not known.
    """
    choose("pooling", how, POOLINGS)
    if how == "cls":
        return states[:, 0]
    if how == "last":
        last = mask.sum(1) - 1
        return states[torch.arange(len(states), device=states.device), last]
    weights = mask.unsqueeze(2).to(states)
    return (states * weights).sum(1) / weights.sum(1)


def padded(tokens: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "n L"], Bool[Tensor, "n L"]]:
    """Return token ids filled up with 0 on the right, and which are real."""
    lengths = torch.tensor([len(ids) for ids in tokens])
    mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    filled = torch.zeros(mask.shape, dtype=torch.long)
    filled[mask] = torch.tensor([token for ids in tokens for token in ids])
    return filled, mask


@torch.no_grad()
def upper_layers(encoder: PretrainedEncoder, count: int) -> UpperLayers:
    """Return a copy of the last layers of an encoder, as a module of its own.

    Raises:
        InputError: they do not give by themselves what they give in the whole encoder.
    """
    made = UpperLayers(encoder.model, count)
    ids, mask = padded(encoder.tokenizer(list(_PROBE))["input_ids"])
    whole = last_states(encoder.model, mask, input_ids=ids)
    cut = made(states_below(encoder.model, count, ids, mask), mask)
    difference = float(((whole - cut).abs() * mask.unsqueeze(2)).max() / whole.abs().max().clamp(min=1e-12))
    if not difference < _TOLERANCE:
        raise InputError(
            f"{encoder.name}: its last layers do not give by themselves what they give in the whole encoder (they "
            f"differ by {difference:.1e}); train it with layers=all or layers=0"
        )
    return made
