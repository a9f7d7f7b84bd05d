"""A bundle as a site without a server: a page, and files that it searches in the browser, from any static host.

    index.html page/       the served search page, with `ask.js` and what it needs in place of the server
    manifest.json          counts, model, what was lost by cutting; size and SHA-256 of the files below
    data/tokenizer.bin     vocabulary, and what becomes of each character (web_rules.py)
    data/table.bin         the query tower's token vectors, head folded in: float32 scales (tokens,), int8 (tokens, dim)
    data/document_table.bin  the document tower's, where it has its own
    data/documents.bin     the documents' vectors, in the same form
    data/words.bin data/postings.bin       BM25 (web_words.py)
    data/passages/*.bin    (id, title, text, metadata) of a hundred documents each, fetched when one is shown
    data/ids.bin           the ids of all, fetched when a document is asked for by its id
    data/query.onnx page/runtime/          a recurrent query tower, and onnxruntime-web, where they were asked for

All of ``data`` but ONNX is gzip; numbers are little-endian. A number of a vector is its int8 times its row's scale.
"""

import datetime
import gzip
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from freemvmt.config import HYBRID_WEIGHT
from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.export.onnx import graph_of
from freemvmt.export.sentence_transformers import folded_tables
from freemvmt.export.site.page import page_files
from freemvmt.export.site.postings import words_file
from freemvmt.export.site.rules import tokenizer_rules, word_rules
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import QUIET, Console
from freemvmt.search.bundle.build import DIRECTIONS_FROM, narrowed
from freemvmt.search.bundle.load import open_bundle
from freemvmt.search.bundle.recall import PROBES
from freemvmt.search.index.exact import top_k
from freemvmt.search.index.fusion import DEPTH
from freemvmt.search.index.ranking import spread
from freemvmt.search.stores.local.store import EmbeddedStore
from freemvmt.storage.files import whole_folder
from freemvmt.storage.manifest import seal
from freemvmt.storage.outputs import check_free

FORMAT = 2
DIMS = (384, 256, 192, 128, 96, 64, 48, 32)  # tried in this order where none is asked for
MAX_MB = 20.0
SHARD = 100  # documents of a file of passages: the ten hits of a page are ten small files at most
MOST_HITS = 100  # that the page offers

_MB = 1_000_000
_SEAL = 130  # bytes that the manifest takes for a file
_PARTS = {
    "page": "page/", "passages": "data/passages/", "words": "data/words", "postings": "data/postings",
    "tokenizer": "data/tokenizer", "tokens": "data/table", "vectors": "data/documents",
}  # fmt: skip

Files = dict[str, bytes]  # by their path in the site


@dataclass(frozen=True)
class Site:
    """What was written. ``recall``: how much of the ten best of the whole vectors, searched with float32, is among the
    ten best of these."""

    bytes: int
    dim: int
    documents: int
    recall: float


def export_site(
    bundle: Path,
    output: Path,
    *,
    dim: int | None = None,
    max_mb: float = MAX_MB,
    runtime: Path | None = None,
    console: Console = QUIET,
) -> Site:
    """Write the site of ``bundle`` into the folder ``output``, whole or not at all.

    ``dim`` None takes the most dimensions with which all that is written has ``max_mb`` million bytes at most.
    ``runtime`` is the folder ``dist`` of onnxruntime-web, with which a recurrent query tower runs in the page.
    Raises ``UserError`` where that is too little, ``output`` is there already, the bundle's documents are in Milvus,
    its towers are transformers, or its tokenizer is no WordPiece of BERT's.
    """
    check_free(output, [bundle])
    model, store, manifest = open_bundle(bundle)
    assert isinstance(model, TwoTowersModel)  # no graphs were named that could stand in for it
    try:
        if not isinstance(store, EmbeddedStore):
            raise UserError(f"the documents of {bundle} are in Milvus; index the corpus without --store to export it")
        if model.config.tower == "transformer":
            raise UserError("a transformer cannot run in a page without a server; export a bundle of averages")
        if dim is not None and not 1 <= dim <= model.dim:
            raise UserError(f"--dim is {dim}, but the vectors of {bundle} have {model.dim}; give 1 to that many")
        view = store.view()
        documents = view.documents(view.numbers())
    finally:
        store.close()
    if not documents:
        raise UserError(f"{bundle} holds no document; add some with `two-towers add`")
    contents = [document.content for document in documents]
    files = _fixed_files(model, documents, contents) | page_files(model, runtime)
    with_graph = runtime is not None
    narrow, vectors = _fitting(model, contents, files, dim, max_mb, with_graph)
    files |= vectors
    kept = restored(gzip.decompress(vectors["data/documents.bin"]), narrow.dim)
    recall = _recall(model, narrow, kept, documents, contents)
    told = {
        "two_towers_site": FORMAT,
        "version": version("two-towers"),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "name": manifest["name"],
        "documents": len(documents),
        "dim": narrow.dim,
        "recall": recall,
        "model": manifest["model"],
        "queries": "onnx" if with_graph else "table",
        "shard": SHARD,
        "depth": DEPTH,
        "weight": HYBRID_WEIGHT,
        "most_hits": MOST_HITS,
    }
    size = _write(output, files, told)
    for label, start in _PARTS.items():
        part = sum(len(content) for name, content in files.items() if name.startswith(start))
        console.line(f"{label:<9} {part / _MB:6.2f} MB")
    return Site(size, narrow.dim, len(documents), recall)


def _write(output: Path, files: Files, told: dict[str, Any]) -> int:
    """Write all, with the manifest, and return how many bytes that is."""
    with whole_folder(output) as part:
        for name, content in files.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(content)
        seals = seal(part, [name for name in files if name.startswith("data/")])
        text = json.dumps({**told, "files": seals}, separators=(",", ":")) + "\n"
        (part / "manifest.json").write_text(text, encoding="utf-8")
    return sum(map(len, files.values())) + len(text)


def _fixed_files(model: TwoTowersModel, documents: Sequence[Document], contents: Sequence[str]) -> Files:
    """The files that do not depend on the size of vectors."""
    rules = tokenizer_rules(model.tokenizer)
    words = words_file(contents)
    rules["words"] = word_rules() | {"tokens": words.tokens}
    files = {
        "data/tokenizer.bin": _packed(_json(rules)),
        "data/words.bin": _packed(words.words),
        "data/postings.bin": _packed(words.postings),
        "data/ids.bin": _packed(_json([document.id for document in documents])),
    }
    for first in range(0, len(documents), SHARD):
        rows = [[one.id, one.title, one.text, one.metadata] for one in documents[first : first + SHARD]]
        files[f"data/passages/{first // SHARD:05d}.bin"] = _packed(_json(rows))
    return files


def _fitting(
    model: TwoTowersModel, contents: Sequence[str], fixed: Files, dim: int | None, max_mb: float, with_graph: bool
) -> tuple[TwoTowersModel, Files]:
    """The model cut to ``dim``, or to the most dimensions that fit, and the files of its vectors."""
    sample = [contents[row] for row in spread(len(contents), DIRECTIONS_FROM)]
    rest = sum(map(len, fixed.values())) + _SEAL * (len(fixed) + 10)
    tried = [dim] if dim else [model.dim, *(size for size in DIMS if size < model.dim)]
    size = 0
    for number in tried:
        narrow = model if number == model.dim else narrowed(model, number, sample)
        files = _vector_files(narrow, contents)
        if with_graph:
            graph = graph_of(narrow.query_tower, narrow.query_head, "int8")
            files["data/query.onnx"] = graph.SerializeToString()
        size = rest + sum(map(len, files.values()))
        if size <= max_mb * _MB:
            return narrow, files
    smaller = "" if tried[-1] <= DIMS[-1] else "a smaller --dim, "
    raise UserError(
        f"the site has {size / _MB:.1f} MB with vectors of {tried[-1]}, more than --max-mb {max_mb:g}; "
        f"give --max-mb {math.ceil(size / _MB)}, {smaller}or index fewer documents"
    )


def _vector_files(model: TwoTowersModel, contents: Sequence[str]) -> Files:
    tables = folded_tables(model)
    files = {"data/documents.bin": _packed(quantized(model.encode_documents(contents)))}
    files["data/table.bin"] = _packed(quantized(tables.get("query", tables["document"])))
    if "query" in tables:
        files["data/document_table.bin"] = _packed(quantized(tables["document"]))
    return files


def quantized(rows: Tensor) -> bytes:
    """Rows (n, dim) as n float32 scales and n * dim int8: a row's largest number is 127 times its scale."""
    numbers = rows.detach().cpu().numpy()
    scales = np.maximum(np.abs(numbers).max(1, initial=0) / 127, 1e-12).astype("<f4")
    kept: bytes = scales.tobytes() + np.rint(numbers / scales[:, None]).astype(np.int8).tobytes()
    return kept


def restored(content: bytes, dim: int) -> Tensor:
    """What ``quantized`` keeps of its rows, (n, dim) float32."""
    count = len(content) // (4 + dim)
    scales = np.frombuffer(content, "<f4", count)
    numbers = np.frombuffer(content, np.int8, offset=4 * count).reshape(count, dim)
    return torch.from_numpy(numbers * scales[:, None])


def _recall(
    model: TwoTowersModel, narrow: TwoTowersModel, kept: Tensor, documents: Sequence[Document], contents: Sequence[str]
) -> float:
    """Of the ten best documents by whole float32 vectors, the share that those of the site, ``kept``, find;
    queries are the beginnings of documents from all over."""
    rows = spread(len(documents), PROBES)
    probes = [" ".join((documents[row].title or documents[row].text).split()[:8]) for row in rows]
    wanted = top_k(model.encode_queries(probes), model.encode_documents(contents), 10).documents
    found = top_k(narrow.encode_queries(probes).cpu(), kept, 10).documents
    return float(np.mean([len(set(one) & set(other)) / len(one) for one, other in zip(wanted, found, strict=True)]))


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, 6, mtime=0)
