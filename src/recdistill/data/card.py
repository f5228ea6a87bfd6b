"""The dataset card of an artifact: ``README.md`` with YAML front matter, as dataset hubs read it."""

from typing import Any

CARD = """---
pretty_name: {title}
tags:
- recdistill
- dataset-distillation
- recommender-systems
size_categories:
- n<1K
---

# {title}

{num_rows} sequences of {length} items, made by `{method}` from **{name}** ({train_interactions:,} training
interactions of {users:,} users with {items:,} items).

| | |
|---|---|
| kind of rows | {kind} |
| method | {method} |
| seed | {seed} |
| made with | recdistill {version} |
| split hash | `{hash}` |

## Use

```
recdistill inspect FOLDER
recdistill train FOLDER MODEL_FOLDER --model sasrec --items given
```

The folder ships the item table of the model that was trained on the full data (`--items given`, `--items frozen`), or
lets a model learn its own from these rows alone (`--items random`). The three answer different questions: with a given
table most of the accuracy may come from the table.

## Limits

The rows are made from the training part of the split only. They inherit the terms of use of the original data. No
claim of anonymity is made.

## Parameters

{parameters}
"""


def dataset_card(manifest: dict[str, Any]) -> str:
    """Return the text of the card for the content of a manifest."""
    source = manifest["source"]
    parameters = "\n".join(f"* `{name}`: {value}" for name, value in sorted(manifest["parameters"].items()))
    return CARD.format(
        title=f"{source['name']}, distilled by {manifest['method']}",
        num_rows=manifest["num_rows"],
        length=manifest["length"],
        method=manifest["method"],
        name=source["name"],
        train_interactions=source["train_interactions"],
        users=source["users"],
        items=source["items"],
        kind=manifest["kind"],
        seed=manifest["seed"],
        version=manifest["versions"]["recdistill"],
        hash=source["hash"][:16],
        parameters=parameters or "none",
    )
