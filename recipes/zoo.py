"""Models that judge a summary: five families in several sizes, by names that say family and width.

``sasrec_32`` is the SASRec of the dataset, teacher and student of the other grids, and shares its cells with them.
Which models a method has seen is a property of the method: those among its ``families``.
"""

from typing import Any

from recdistill.distill.peers import FAMILIES, Family

OWN = "sasrec_32"
"""The dataset's own SASRec."""
VARIANTS: dict[str, Family] = {
    **{name: FAMILIES[name] for name in ("gru4rec_64", "narm_32", "bert4rec_32", "sasrec_64")},
    "sasrec_128": Family(model="sasrec", config={"embedding_dim": 128, "num_blocks": 1, "dropout": 0.3}),
    "gru4rec_32": Family(model="gru4rec", config={"embedding_dim": 32, "hidden_dim": 32, "dropout": 0.2}),
    "gru4rec_128": Family(model="gru4rec", config={"hidden_dim": 128}),
    "narm_128": Family(model="narm", config={"hidden_dim": 128}),
    "bert4rec_64": Family(model="bert4rec", config={"dropout": 0.2, "attention_dropout": 0.2}),
}
"""Students that are no key of ``MODELS``; the library's defaults for what they do not name."""
TEXT_VARIANTS: dict[str, dict[str, Any]] = {
    "text_gru4rec": {"body": "gru4rec", "body_options": {"dropout": 0.2}},
    "text_narm": {"body": "narm", "body_options": {}},
    "text_lora": {"layers": 1, "lora_rank": 8, "lora_alpha": 32.0},
}
"""Text models beside that of a dataset: what they have of their own."""
ZOO: dict[str, str] = {OWN: "sasrec", **{name: name for name in VARIANTS}, "popularity": "popularity"}
"""Student of each judge, as cells name it."""


def architecture(student: str) -> str:
    """Return the key of ``MODELS`` behind a student's name."""
    if student in TEXT_VARIANTS:
        return "text"
    return VARIANTS[student].model if student in VARIANTS else student
