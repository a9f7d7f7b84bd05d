"""The card of a trained model: what it is, how and on what it was trained, and its scores with their protocol.

The Hugging Face Hub reads the front matter: library, base model, data sets, and a ``model-index`` with each score. Its
format is huggingface_hub's (https://github.com/huggingface/hub-docs/blob/main/modelcard.md).
"""

import re
import shlex
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from freemvmt.config import BASE_MODEL, TowerKind, TrainConfig, changed_flags
from freemvmt.runtime.console import count_of
from freemvmt.storage import hub
from freemvmt.storage.sentence_config import SentenceConfig

_METRICS = {"ndcg@10": "NDCG@10", "mrr@10": "MRR@10", "recall@100": "Recall@100", "recall@1000": "Recall@1000"}

_ROWS = {
    "table": "token vectors from",
    "distilled": "token vectors distilled from",
    "encoded": "tokens, each encoded by",
}


def metadata(base: str, record: dict[str, Any], name: str) -> ModelCardData:
    """The front matter for the model ``name`` on the base model ``base``; ``record`` is empty if it is untrained."""
    collection = record.get("validation", {}).get("collection", "")
    evaluation = {**record.get("validation", {}), "method": "dense", **record.get("scores", {})}
    names = record.get("data", "").split(" + ")
    return ModelCardData(
        language="en" if base == BASE_MODEL else None,
        library_name="two-towers",
        base_model=base if hub.is_name(base) and not Path(base).is_dir() else None,
        datasets=[hub.MS_MARCO] if "msmarco" in names else None,
        pipeline_tag="sentence-similarity",
        tags=["two-towers", "retrieval", "feature-extraction"],
        model_name=name,
        eval_results=evaluations(evaluation) if collection else None,
    )


def evaluations(evaluation: dict[str, Any]) -> list[EvalResult]:
    """One result for each metric in the output of `evaluate --json`, with its protocol and 95 % interval."""
    collection, intervals = str(evaluation["collection"]), evaluation.get("interval_95", {})
    is_ms_marco = collection.partition(" ")[0] == "msmarco"
    return [
        EvalResult(
            task_type="text-retrieval",
            task_name=f"Retrieval ({evaluation['method']})",
            dataset_name=collection,
            dataset_type=hub.MS_MARCO if is_ms_marco else re.sub(r"[^\w.-]+", "-", collection),
            metric_type=metric.replace("@", "_at_"),
            metric_name=_METRICS[metric],
            metric_value=evaluation[metric],
            metric_args={
                "protocol": evaluation["protocol"],
                "queries": evaluation["queries"],
                "documents": evaluation["documents"],
                **({"interval_95": list(intervals[metric])} if intervals.get(metric) else {}),
            },
        )
        for metric in _METRICS
        if metric in evaluation
    ]


def write_card(config: TrainConfig, record: dict[str, Any], name: str, sentence: SentenceConfig) -> str:
    """The text of a model folder's README.md; ``record`` describes the training, ``sentence`` a transformer tower."""
    validation, scores = record["validation"], record["scores"]
    bounds = scores["interval_95"]["ndcg@10"]  # None of a single query
    interval = " (95 % of resamples: {:.4f} to {:.4f})".format(*bounds) if bounds else ""
    command = record.get("retuned") or ["two-towers", "train", *changed_flags(config)]
    return f"""---
{metadata(config.base, record, name).to_yaml()}
---

# {name}

A query tower and a document tower, {_towers(config, sentence)}, trained on
{record["data"]} ({_examples(config, record["pairs"])}) with the {config.loss} loss{_teacher(config)}. Vectors have
{record["dim"]} dimensions and length 1.

| validation NDCG@10 | |
|---|---|
| {"the query tower before" if "retuned" in record else "untrained"} | {scores["untrained_ndcg@10"]:.4f} |
| this model (epoch {scores["best_epoch"]}) | {scores["ndcg@10"]:.4f}{interval} |
{_retention(scores)}
Protocol: {validation["protocol"]}; {count_of(validation["queries"], "query", "queries")} of {validation["collection"]}.
No query of them was trained on.

## How it was made

    {shlex.join(command)}

## How to use it

```python
from freemvmt import TwoTowersModel

model = TwoTowersModel.load("{name}")
queries = model.encode_queries(["what is a tower"])
documents = model.encode_documents(["A tall, narrow building."])
print(queries @ documents.T)
```
"""


def _retention(scores: dict[str, Any]) -> str:
    """A row with the score of the frozen tower on both sides, and what share of it the model keeps."""
    if "retention" not in scores:
        return ""
    return f"| the frozen tower on both sides | {scores['frozen_ndcg@10']:.4f} (kept: {scores['retention']:.1%}) |\n"


def _examples(config: TrainConfig, count: int) -> str:
    if config.learns_without_labels:
        return f"{count_of(count, 'query', 'queries')}, without labels"
    return count_of(count, "pair")


def _towers(config: TrainConfig, sentence: SentenceConfig) -> str:
    """What the towers are: one description for both, or one for each."""
    if not config.is_mixed:
        return "each " + _tower(config, config.tower, sentence)
    sides = (f"the {side} tower {_tower(config, config.kind_of(side), sentence)}" for side in ("query", "document"))
    return ", ".join(sides)


def _tower(config: TrainConfig, kind: TowerKind, sentence: SentenceConfig) -> str:
    if kind == "transformer":
        return f"the whole transformer `{config.base}`{sentence.words}"
    rows = f"{_ROWS[config.initial_rows]} `{config.base}`"
    if kind == "average":
        return f"the average of {rows}"
    direction = "from both ends" if config.bidirectional else "from the beginning"
    recurrence = (
        f"a recurrence ({config.cell.upper()}, {config.layers} x {config.hidden}) that reads a text {direction}"
    )
    if config.pooling == "weighted":
        return f"an average of {rows}, weighted by {recurrence}"
    return f"{recurrence}, {config.pooling} pooling, over {rows}"


def _teacher(config: TrainConfig) -> str:
    return f" and similarities taught by `{config.teacher}`" if config.distill else ""
