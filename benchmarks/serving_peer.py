"""The same model in sentence-transformers, with FAISS behind FastAPI: what one would write without two-towers.

    python benchmarks/serving_peer.py BUNDLE PORT               serve the bundle's documents, dense only
    python benchmarks/serving_peer.py BUNDLE --save FOLDER      the model as a sentence-transformers folder

The token table and the tokenizer are the bundle's, so vectors are the same (checked on start, within 1e-4); search is
exact; uvicorn has the settings of our server, and searches run in as many threads.
"""

import asyncio
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from tokenizers import Tokenizer

from freemvmt.model import TwoTowersModel
from freemvmt.search.stores.layout import MODEL_FOLDER
from freemvmt.search.stores.texts import Texts

NEAR = 1e-4


class Question(BaseModel):
    """As our server takes it; what it does not know is left alone."""

    query: str = Field(min_length=1, max_length=10_000)
    k: int = Field(10, ge=1, le=1000)


def static_model(ours: TwoTowersModel) -> SentenceTransformer:
    """``ours`` as sentence-transformers' StaticEmbedding; only one table for both towers can be one."""
    if len(ours.tables()) > 1 or ours.dim != ours.document_tower.table.shape[1]:
        raise SystemExit("this model has two tables or a head; StaticEmbedding has one table")
    tokenizer = Tokenizer.from_str(ours.tokenizer.definition)
    tokenizer.no_padding()
    tokenizer.enable_truncation(ours.config.max_length)
    table = ours.document_tower.table.detach().cpu()
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, table), Normalize()], device="cpu")


def largest_difference(ours: TwoTowersModel, peer: SentenceTransformer, texts: list[str]) -> float:
    """Between the two models' vectors of ``texts``, in any dimension."""
    peers = peer.encode(texts, convert_to_numpy=True, show_progress_bar=False)
    return float(np.abs(ours.encode_documents(texts).cpu().numpy() - peers).max())


def save(model: SentenceTransformer, folder: Path) -> None:
    """Save as the sentence-transformers of infinity-emb (3.4) reads it: the older names, a folder a module."""
    model.save(str(folder))
    static = folder / "0_StaticEmbedding"
    static.mkdir()
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).rename(static / name)
    listed = folder / "modules.json"
    modules = json.loads(listed.read_text(encoding="utf-8"))
    for module in modules:
        module["type"] = f"sentence_transformers.models.{module['type'].rsplit('.', 1)[1]}"
        module["path"] = module["path"] or static.name
    listed.write_text(json.dumps(modules), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"architectures": ["StaticEmbedding"]}), encoding="utf-8")


def make_app(ours: TwoTowersModel, bundle: Path) -> FastAPI:
    """POST /search and GET /health over the documents that the bundle was made of."""
    stored = Texts(bundle)
    documents = [stored[row] for row in range(len(stored))]
    texts = [document.content for document in documents]
    model = static_model(ours)
    if (difference := largest_difference(ours, model, texts[:1000])) > NEAR:
        raise SystemExit(f"vectors differ by {difference:g}; the peer must have the same model")
    index = faiss.IndexFlatIP(ours.dim)
    index.add(model.encode(texts, convert_to_numpy=True, show_progress_bar=False, batch_size=1024))
    pool = ThreadPoolExecutor(os.cpu_count(), initializer=_one_core)
    app = FastAPI()

    def find(asked: Question) -> dict[str, Any]:
        started = time.perf_counter()
        vector = model.encode([asked.query], convert_to_numpy=True, show_progress_bar=False)
        scores, rows = index.search(vector, min(asked.k, len(documents)))
        hits = [
            {
                "id": documents[row].id,
                "score": score,
                "title": documents[row].title,
                "text": documents[row].text,
                "metadata": documents[row].metadata,
            }
            for score, row in zip(scores[0].tolist(), rows[0].tolist(), strict=True)
        ]
        return {"query": asked.query, "hits": hits, "took_ms": (time.perf_counter() - started) * 1e3}

    @app.post("/search")
    async def search(asked: Question) -> dict[str, Any]:
        return await asyncio.get_running_loop().run_in_executor(pool, find, asked)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "largest_difference": difference}

    return app


def _one_core() -> None:
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)


def main() -> int:
    """Serve, or save."""
    bundle, ours = Path(sys.argv[1]), TwoTowersModel.load(Path(sys.argv[1]) / MODEL_FOLDER)
    if sys.argv[2] == "--save":
        save(static_model(ours), Path(sys.argv[3]))
        return 0
    app = make_app(ours, bundle)
    _one_core()
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), http="httptools", access_log=False, log_level="error")
    return 0


if __name__ == "__main__":
    sys.exit(main())
