"""The card of a trained model: what it is, what it was trained on and how, how good it is and by which protocol."""

import shlex
from typing import Any

from freemvmt.config import TrainConfig, changed_flags


def write_card(config: TrainConfig, record: dict[str, Any], name: str) -> str:
    """The text of a model folder's README.md; ``record`` is what the training knows of itself."""
    validation, scores = record["validation"], record["scores"]
    return f"""---
library_name: two-towers
base_model: {config.base}
pipeline_tag: sentence-similarity
tags: [two-towers, retrieval, static-embeddings]
---

# {name}

A query tower and a document tower, {_towers(config)}, trained on
{record["data"]} ({record["pairs"]:,} pairs) with the {config.loss} loss{_teacher(config)}. Vectors have
{record["dim"]} dimensions and length 1.

| validation NDCG@10 | |
|---|---|
| untrained | {scores["untrained_ndcg@10"]:.4f} |
| this model (epoch {scores["best_epoch"]}) | {scores["ndcg@10"]:.4f} |

Protocol: {validation["protocol"]}; {validation["queries"]} queries of {validation["collection"]}.
No query of them was trained on.

## How it was made

    two-towers train {shlex.join(changed_flags(config))}

## How to use it

```python
from freemvmt import TwoTowersModel

model = TwoTowersModel.load("{name}")
queries = model.encode_queries(["what is a tower"])
documents = model.encode_documents(["A tall, narrow building."])
print(queries @ documents.T)
```
"""


def _towers(config: TrainConfig) -> str:
    rows = "token vectors distilled" if config.rows == "distilled" else "token vectors"
    if config.tower == "average":
        return f"each the average of {rows} from `{config.base}`"
    ways = "from both ends" if config.bidirectional else "from the beginning"
    reads = f"a recurrence ({config.cell.upper()}, {config.layers} x {config.hidden}) that reads a text {ways}"
    if config.pooling == "weighted":
        return f"each an average of {rows} from `{config.base}`, weighted by {reads}"
    return f"each from {rows} of `{config.base}` by {reads}, {config.pooling} pooling"


def _teacher(config: TrainConfig) -> str:
    return f" and similarities taught by `{config.teacher}`" if config.distill else ""
