"""MTEB measures what we measure: one task from a folder of ours, one score."""

from pathlib import Path
from typing import Any

import pytest

from outside import NO_INTEGRATIONS

pytest.importorskip("mteb", reason=NO_INTEGRATIONS)

import datasets
import mteb
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from freemvmt.config import ModelConfig
from freemvmt.evaluation.metrics import evaluate
from freemvmt.integrations.mteb import TwoTowersEncoder
from freemvmt.model import TwoTowersModel
from freemvmt.search.retriever import Retriever
from freemvmt.trainer.dataset import TrainingData


@pytest.mark.parametrize("document_tower", ["average", "transformer"])
def test_the_score_is_ours(document_tower: Any, tiny_encoder: str, tiny_data: TrainingData, tmp_path: Path) -> None:
    collection = tiny_data.validation

    class Ours(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="Ours",
            description="Rows whose passages answer in other words.",
            type="Retrieval",
            dataset={"path": "two-towers/ours", "revision": "1"},
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            reference=None,
        )

        def load_data(self, **_: Any) -> None:
            corpus = [{"id": i, "text": t} for i, t in zip(collection.document_ids, collection.documents, strict=True)]
            queries = [{"id": i, "text": t} for i, t in zip(collection.query_ids, collection.queries, strict=True)]
            split = {
                "corpus": datasets.Dataset.from_list(corpus), "queries": datasets.Dataset.from_list(queries),
                "relevant_docs": collection.qrels, "top_ranked": None,
            }  # fmt: skip
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    config = ModelConfig(base=tiny_encoder, query_tower="average", document_tower=document_tower, separate_towers=True)
    model = TwoTowersModel(config)
    found = mteb.evaluate(TwoTowersEncoder(model, name="tests/towers"), Ours(), cache=None, overwrite_strategy="always")
    (scores,) = found.task_results[0].scores["test"]
    retriever = Retriever(model, collection.documents, collection.document_ids)
    ours = evaluate(retriever, collection, "dense")[0].metrics
    assert scores["ndcg_at_10"] == pytest.approx(ours["ndcg@10"], abs=1e-4)
    assert scores["mrr_at_10"] == pytest.approx(ours["mrr@10"], abs=1e-4)
    assert scores["recall_at_100"] == pytest.approx(ours["recall@100"], abs=1e-4)
