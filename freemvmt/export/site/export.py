"""Export a bundle as a static site: a page, and data files that it searches in the browser. Any host can serve it.

    index.html page/       the search page of the server, with `ask.js` and modules that replace the server
    manifest.json          counts, model, recall of the reduced vectors; size and SHA-256 of the files below
    data/tokenizer.bin     vocabulary, and the rule of each character (rules.py)
    data/table.bin         the query tower's token vectors after the head: float32 scales (tokens,), int8 (tokens, dim)
    data/document_table.bin  the document tower's token vectors, if they differ
    data/documents.bin     the documents' vectors, in the same format
    data/words.bin data/postings.bin       BM25 (postings.py)
    data/passages/*.bin    (id, title, text, metadata) of a hundred documents each, fetched when one is shown
    data/ids.bin           the ids of all documents, fetched when a document is requested by its id
    data/query.onnx page/runtime/          a recurrent query tower, and onnxruntime-web (with ``runtime``)

All files in ``data`` except query.onnx are gzip; numbers are little-endian. An element of a vector is its int8 times
the scale of its row.
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
from torch.nn import functional as F

from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.export.onnx import graph_of
from freemvmt.export.sentence_transformers import folded_table
from freemvmt.export.site.page import page_files
from freemvmt.export.site.postings import words_file
from freemvmt.export.site.rules import tokenizer_rules, word_rules
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import QUIET, Console
from freemvmt.search.bundle.build import DIRECTIONS_FROM, directions_of
from freemvmt.search.bundle.load import open_bundle
from freemvmt.search.bundle.recall import PROBES
from freemvmt.search.index.exact import top_k
from freemvmt.search.index.fusion import DEPTH
from freemvmt.search.index.ranking import evenly_spaced
from freemvmt.search.stores.layout import MODEL_FOLDER
from freemvmt.search.stores.local.store import LocalStore
from freemvmt.storage.files import atomic_folder
from freemvmt.storage.manifest import hash_files
from freemvmt.storage.outputs import check_empty

FORMAT = 2
DIMS = (384, 256, 192, 128, 96, 64, 48, 32)  # tried in this order if ``dim`` is None
MAX_MB = 20.0
SHARD = 100  # documents in a file of passages: the ten hits of a page need at most ten small files
MAX_HITS = 100  # of one search on the page

_MB = 1_000_000
_MANIFEST_ENTRY_BYTES = 130  # size of one entry of ``files`` in the manifest
_SECTIONS = {
    "page": "page/", "passages": "data/passages/", "words": "data/words", "postings": "data/postings",
    "tokenizer": "data/tokenizer", "tokens": "data/table", "vectors": "data/documents",
}  # fmt: skip

Files = dict[str, bytes]  # by their path in the site


@dataclass(frozen=True)
class Site:
    """The written site. ``recall`` is the share of the ten best documents by the model's full float32 vectors that are
    also among the ten best by the vectors of the site."""

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
    """Write the site of ``bundle`` into the folder ``output``.

    ``dim`` None selects the most dimensions with which the whole site has at most ``max_mb`` million bytes.
    ``runtime`` is the folder ``dist`` of onnxruntime-web, which runs a recurrent query tower in the page.
    Raises ``UserError`` when the site exceeds ``max_mb``, ``output`` exists and is not empty, the documents are in
    Milvus, the query tower is a transformer, or the tokenizer is not BERT's WordPiece.
    """
    check_empty(output, [bundle])
    model, documents, vectors, manifest = _contents(bundle, dim, console)
    files = _fixed_files(model, documents) | page_files(model, runtime)
    with_graph = runtime is not None
    narrow, vector_files = _fit_to_size(model, vectors, files, dim, max_mb, with_graph)
    files |= vector_files
    site_vectors = restored(gzip.decompress(files["data/documents.bin"]), narrow.dim)
    recall = _recall(model, narrow, vectors, site_vectors, documents)
    site_manifest = {
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
        "weight": manifest["weight"],
        "most_hits": MAX_HITS,
    }
    size = _write_site(output, files, site_manifest)
    for label, start in _SECTIONS.items():
        section_bytes = sum(len(content) for name, content in files.items() if name.startswith(start))
        console.line(f"{label:<9} {section_bytes / _MB:6.2f} MB")
    return Site(size, narrow.dim, len(documents), recall)


def _contents(
    bundle: Path, dim: int | None, console: Console
) -> tuple[TwoTowersModel, list[Document], Tensor, dict[str, Any]]:
    """The model, the documents, their vectors and the manifest of ``bundle``, with the hybrid's ``weight``.

    The vectors of a transformer are those that the bundle has, and of its model the query tower alone is read. The
    vector of a document that is cut is that of its beginning.
    """
    encoder, store, manifest = open_bundle(bundle)
    manifest = manifest | {"weight": encoder.hybrid_weight}
    try:
        if not isinstance(store, LocalStore):
            raise UserError(f"the documents of {bundle} are in Milvus; index the corpus without --store to export it")
        if manifest["model"]["tower"] == "transformer":
            raise UserError(
                "a transformer cannot encode queries in a page without a server; give a bundle whose query tower "
                "averages or recurs"
            )
        if dim is not None and not 1 <= dim <= manifest["dim"]:
            raise UserError(f"--dim is {dim}, but the vectors of {bundle} have {manifest['dim']}; give 1 to that many")
        view = store.view()
        documents = view.documents(view.numbers())
        if not documents:
            raise UserError(f"{bundle} holds no document; add some with `two-towers add`")
        if view.is_cut:
            console.line("note      the page finds a long document by its beginning, or by its words")
        if manifest["model"]["document_tower"] == "transformer":
            vectors = torch.from_numpy(view.vectors([view.passages_of(number)[0] for number in view.numbers()]))
            return TwoTowersModel.load_query_tower(bundle / MODEL_FOLDER), documents, vectors, manifest
    finally:
        store.close()
    model = TwoTowersModel.load(bundle / MODEL_FOLDER, verify=False)
    return model, documents, model.encode_documents([document.content for document in documents]), manifest


def _write_site(output: Path, files: Files, manifest: dict[str, Any]) -> int:
    """Write ``files`` and manifest.json; return the number of bytes."""
    with atomic_folder(output) as temporary:
        for name, content in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(content)
        hashes = hash_files(temporary, [name for name in files if name.startswith("data/")])
        text = json.dumps({**manifest, "files": hashes}, separators=(",", ":")) + "\n"
        (temporary / "manifest.json").write_text(text, encoding="utf-8")
    return sum(map(len, files.values())) + len(text)


def _fixed_files(model: TwoTowersModel, documents: Sequence[Document]) -> Files:
    """The files that do not depend on the number of dimensions."""
    rules = tokenizer_rules(model.tokenizer)
    words = words_file([document.content for document in documents])
    rules["words"] = word_rules() | {"tokens": words.tokens}
    files = {
        "data/tokenizer.bin": _gzip(_json_bytes(rules)),
        "data/words.bin": _gzip(words.words),
        "data/postings.bin": _gzip(words.postings),
        "data/ids.bin": _gzip(_json_bytes([document.id for document in documents])),
    }
    for first in range(0, len(documents), SHARD):
        rows = [
            [document.id, document.title, document.text, document.metadata]
            for document in documents[first : first + SHARD]
        ]
        files[f"data/passages/{first // SHARD:05d}.bin"] = _gzip(_json_bytes(rows))
    return files


def _fit_to_size(
    model: TwoTowersModel, vectors: Tensor, fixed: Files, dim: int | None, max_mb: float, with_graph: bool
) -> tuple[TwoTowersModel, Files]:
    """The model with ``dim`` dimensions, or with the most that fit into ``max_mb``, and the files of its vectors.

    ``vectors`` are those of the documents, with all dimensions.
    """
    sample = evenly_spaced(len(vectors), DIRECTIONS_FROM)
    fixed_bytes = sum(map(len, fixed.values())) + _MANIFEST_ENTRY_BYTES * (len(fixed) + 10)
    candidates = [dim] if dim else [model.dim, *(size for size in DIMS if size < model.dim)]
    size = 0
    for candidate in candidates:
        narrow, narrow_vectors = model, vectors
        if candidate != model.dim:
            directions = directions_of(model, candidate, lambda: vectors[sample])
            narrow, narrow_vectors = model.cut(directions), F.normalize(vectors @ directions.T)
        files = _vector_files(narrow, narrow_vectors)
        if with_graph:
            graph = graph_of(narrow.query_tower, narrow.query_head, "int8")
            files["data/query.onnx"] = graph.SerializeToString()
        size = fixed_bytes + sum(map(len, files.values()))
        if size <= max_mb * _MB:
            return narrow, files
    smaller = "" if candidates[-1] <= DIMS[-1] else "a smaller --dim, "
    raise UserError(
        f"the site has {size / _MB:.1f} MB with vectors of {candidates[-1]}, more than --max-mb {max_mb:g}; "
        f"give --max-mb {math.ceil(size / _MB)}, {smaller}or index fewer documents"
    )


def _vector_files(model: TwoTowersModel, vectors: Tensor) -> Files:
    files = {"data/documents.bin": _gzip(quantized(vectors))}
    files["data/table.bin"] = _gzip(quantized(folded_table(model.query_tower, model.query_head)))
    if model.query_tower is not model.document_tower:
        table = folded_table(model.document_tower, model.document_head)
        files["data/document_table.bin"] = _gzip(quantized(table))
    return files


def quantized(rows: Tensor) -> bytes:
    """Rows (n, dim) as n float32 scales and n * dim int8: the largest absolute value in a row is 127 scales."""
    numbers = rows.detach().cpu().numpy()
    scales = np.maximum(np.abs(numbers).max(1, initial=0) / 127, 1e-12).astype("<f4")
    content: bytes = scales.tobytes() + np.rint(numbers / scales[:, None]).astype(np.int8).tobytes()
    return content


def restored(content: bytes, dim: int) -> Tensor:
    """The rows that ``quantized`` wrote, (n, dim) float32."""
    count = len(content) // (4 + dim)
    scales = np.frombuffer(content, "<f4", count)
    numbers = np.frombuffer(content, np.int8, offset=4 * count).reshape(count, dim)
    return torch.from_numpy(numbers * scales[:, None])


def _recall(
    model: TwoTowersModel,
    narrow: TwoTowersModel,
    vectors: Tensor,
    site_vectors: Tensor,
    documents: Sequence[Document],
) -> float:
    """The share of the ten best documents by ``vectors`` that are also among the ten best by ``site_vectors``.

    The queries are the first eight words of documents, evenly spaced in the corpus.
    """
    rows = evenly_spaced(len(documents), PROBES)
    probes = [" ".join((documents[row].title or documents[row].text).split()[:8]) for row in rows]
    exact = top_k(model.encode_queries(probes), vectors, 10).documents
    approximate = top_k(narrow.encode_queries(probes), site_vectors, 10).documents
    return float(
        np.mean([len(set(best) & set(hits)) / len(best) for best, hits in zip(exact, approximate, strict=True)])
    )


def _json_bytes(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, 6, mtime=0)
