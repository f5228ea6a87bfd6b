"""Tiny text encoders with random weights, written as folders that the Hugging Face library reads."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import torch

WORDS = [
    *("red", "blue", "green", "gold", "dark", "light", "fast", "slow", "old", "new", "iron", "glass", "paper", "stone"),
    *("wood", "salt", "sugar", "tea", "coffee", "bread", "game", "car", "boat", "train", "lamp", "chair", "table"),
    *("phone", "camera", "pen", "book", "of", "the", "and", "for", "with", "item", "no", "text", "category", "brand"),
    *(":", ".", ","),
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@cache
def tiny_encoder(kind: str = "bert", *, seed: int = 0, width: int = 8, layers: int = 2, positions: int = 32) -> str:
    """Return the folder of a ``bert``, a ``distilbert`` or a ``qwen3`` with random weights."""
    import transformers

    folder = Path(tempfile.mkdtemp(prefix=f"tiny-{kind}-"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = {"bert": _bert, "distilbert": _distilbert, "qwen3": _qwen3}[kind](
            transformers, width, layers, positions
        )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0.0, 1.0 if "embed" in name else 0.4)
    model.save_pretrained(folder)
    write_tokenizer(folder, positions)
    return str(folder)


def write_tokenizer(folder: Path, positions: int, words: list[str] | None = None) -> None:
    """Write a tokenizer of whole words into ``folder``."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    known = {word: index for index, word in enumerate([*SPECIAL, *(WORDS if words is None else words)])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", known["[CLS]"]), ("[SEP]", known["[SEP]"])]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=positions,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)


def _bert(transformers: Any, width: int, layers: int, positions: int) -> Any:
    config = transformers.BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=positions,
    )
    return transformers.BertModel(config)


def _distilbert(transformers: Any, width: int, layers: int, positions: int) -> Any:
    config = transformers.DistilBertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        dim=width,
        n_layers=layers,
        n_heads=2,
        hidden_dim=2 * width,
        max_position_embeddings=positions,
    )
    return transformers.DistilBertModel(config)


def _qwen3(transformers: Any, width: int, layers: int, positions: int) -> Any:
    config = transformers.Qwen3Config(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=width // 2,
        intermediate_size=2 * width,
        max_position_embeddings=positions,
        pad_token_id=0,
    )
    return transformers.Qwen3Model(config)


def titles(num_items: int) -> list[str]:
    """Return different titles of one to four known words."""
    words = WORDS[:32]
    return [
        " ".join(words[(3 * item + 7 * place) % 32] for place in range(1 + item % 4)) + f" {words[item % 32]}"
        for item in range(num_items)
    ]


def described(num_items: int) -> pl.DataFrame:
    """Return a vocabulary whose items have titles and, every other one, a brand."""
    ids = list(range(1, num_items + 1))
    return pl.DataFrame(
        {
            "item": ids,
            "item_id": [f"i{item}" for item in ids],
            "title": titles(num_items),
            "brand": ["iron" if item % 2 else None for item in ids],
        }
    )
