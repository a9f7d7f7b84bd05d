"""Export a bundle as a static site: a page, and data files that it searches in the browser. Any host can serve it.

    index.html page/       the search page of the server, with `ask.js` and modules that replace the server
    manifest.json          counts, model, recall of the reduced vectors; size and SHA-256 of the files below
    data/start.bin         what the first search needs to know: the rules of words, the first word of each piece of
                           postings, the first row of each piece of texts, and how many rows each document has
    data/lengths.bin       uint8 (rows,): their lengths in words
    data/postings/*.bin    BM25, a few kilobytes each, fetched by the words of a query (postings.py)
    data/passages/*.bin    the texts, a few kilobytes each, fetched when a hit is shown (texts.py)
    data/tokenizer.bin     vocabulary, and the rule of each character (rules.py)
    data/table.bin         the query tower's token vectors after the head: float32 scales (tokens,), int8 (tokens, dim)
    data/document_table.bin  the document tower's token vectors, if they differ
    data/documents.bin     the vectors of the rows, in the same format
    data/ids.bin           the ids of all documents, fetched when a document is requested by its id
    data/query.onnx page/runtime/          a recurrent query tower, and onnxruntime-web (with ``runtime``)

A row is a passage, or a document that is not cut. The first hits are found by words alone, of which a query needs a few
pieces; from tokenizer.bin on, files are fetched after them. All files in ``data`` except query.onnx are gzip; numbers
are little-endian. An element of a vector is its int8 times the scale of its row.
"""

import datetime
import gzip
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from freemvmt.data.documents import Document
from freemvmt.data.passages import Passage, contents_of
from freemvmt.errors import UserError
from freemvmt.export.onnx import graph_of
from freemvmt.export.sentence_transformers import folded_table
from freemvmt.export.site.links import LinkTemplate, check_address
from freemvmt.export.site.page import page_files
from freemvmt.export.site.postings import word_index
from freemvmt.export.site.rules import tokenizer_rules, word_rules
from freemvmt.export.site.texts import compact_json, text_pieces
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

FORMAT = 3
DIMS = (384, 256, 192, 128, 96, 64, 48, 32)  # tried in this order if ``dim`` is None
MAX_MB = 20.0
MAX_HITS = 100  # of one search on the page

_MB = 1_000_000
_MANIFEST_ENTRY_BYTES = 130  # size of one entry of ``files`` in the manifest
_DIGEST = 16  # hexadecimal digits of a piece's SHA-256 in the manifest, enough to see damage
_SECTIONS = {
    "page": "page/", "passages": "data/passages/", "words": "data/start", "postings": "data/postings/",
    "tokenizer": "data/tokenizer", "tokens": "data/table", "vectors": "data/documents",
}  # fmt: skip

Files = dict[str, bytes]  # by their path in the site


@dataclass(frozen=True)
class Site:
    """The written site. ``recall`` is the share of the ten best passages by the model's full float32 vectors that are
    also among the ten best by the vectors of the site; a document that is not cut is one passage."""

    bytes: int
    dim: int
    documents: int
    passages: int
    recall: float


@dataclass(frozen=True, eq=False)
class _Bundle:
    """What a site is made of: ``cuts`` are the passages of each document, ``vectors`` (passages, dim) their vectors."""

    model: TwoTowersModel
    documents: list[Document]
    cuts: list[list[Passage]]
    vectors: Tensor
    manifest: dict[str, Any]

    def words(self) -> Iterator[str]:
        """What BM25 reads of each passage."""
        for document, passages in zip(self.documents, self.cuts, strict=True):
            yield from (passage.words(document) for passage in passages)
            if not passages:
                yield document.content


def export_site(
    bundle: Path,
    output: Path,
    *,
    dim: int | None = None,
    max_mb: float = MAX_MB,
    runtime: Path | None = None,
    url: str | None = None,
    console: Console = QUIET,
) -> Site:
    """Write the site of ``bundle`` into the folder ``output``.

    ``dim`` None selects the most dimensions with which the whole site has at most ``max_mb`` million bytes.
    ``runtime`` is the folder ``dist`` of onnxruntime-web, which runs a recurrent query tower in the page. ``url`` is
    the template of the links to the original pages (links.py).
    Raises ``UserError`` when the site exceeds ``max_mb``, ``output`` exists and is not empty, the documents are in
    Milvus, the query tower is a transformer, the tokenizer is not BERT's WordPiece, or ``url`` is no safe template.
    """
    check_empty(output, [bundle])
    if url is not None:
        check_address(url)
    content = _contents(bundle, dim)
    model, vectors = content.model, content.vectors
    links = None if url is None else LinkTemplate(url, content.documents)
    files = _fixed_files(content, links) | page_files(model, runtime)
    with_graph = runtime is not None
    narrow, vector_files = _fit_to_size(model, vectors, files, dim, max_mb, with_graph)
    files |= vector_files
    site_vectors = restored(gzip.decompress(files["data/documents.bin"]), narrow.dim)
    recall = _recall(model, narrow, vectors, site_vectors, content.documents)
    site_manifest = {
        "two_towers_site": FORMAT,
        "version": version("two-towers"),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "name": content.manifest["name"],
        "documents": len(content.documents),
        "rows": len(vectors),
        "dim": narrow.dim,
        "recall": recall,
        "model": content.manifest["model"],
        "queries": "onnx" if with_graph else "table",
        "depth": DEPTH,
        "weight": content.manifest["weight"],
        "most_hits": MAX_HITS,
    }
    size = _write_site(output, files, site_manifest)
    for label, start in _SECTIONS.items():
        section_bytes = sum(len(content) for name, content in files.items() if name.startswith(start))
        console.line(f"{label:<9} {section_bytes / _MB:6.2f} MB")
    return Site(size, narrow.dim, len(content.documents), len(vectors), recall)


def _contents(bundle: Path, dim: int | None) -> _Bundle:
    """What ``bundle`` holds; its manifest has the hybrid's ``weight``.

    The vectors of a transformer are those that the bundle has, and of its model the query tower alone is read.
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
        numbers = [view.passages_of(number) for number in view.numbers()]
        documents = view.documents(view.numbers())
        if not documents:
            raise UserError(f"{bundle} holds no document; add some with `two-towers add`")
        cuts = [[passage for passage in view.passages(own) if passage is not None] for own in numbers]
        if manifest["model"]["document_tower"] == "transformer":
            vectors = torch.from_numpy(view.vectors([number for own in numbers for number in own]))
            model = TwoTowersModel.load_query_tower(bundle / MODEL_FOLDER)
            return _Bundle(model, documents, cuts, vectors, manifest)
    finally:
        store.close()
    model = TwoTowersModel.load(bundle / MODEL_FOLDER, verify=False)
    vectors = model.encode_documents(contents_of(documents, cuts))
    return _Bundle(model, documents, cuts, vectors, manifest)


def _write_site(output: Path, files: Files, manifest: dict[str, Any]) -> int:
    """Write ``files`` and manifest.json; return the number of bytes."""
    with atomic_folder(output) as temporary:
        for name, content in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(content)
        hashes = hash_files(temporary, [name for name in files if name.startswith("data/") and not _is_piece(name)])
        digests = {
            kind: "".join(
                hashlib.sha256(content).hexdigest()[:_DIGEST]
                for name, content in files.items()
                if name.startswith(f"data/{kind}/")
            )
            for kind in ("passages", "postings")
        }
        text = json.dumps({**manifest, "files": hashes, "pieces": digests}, separators=(",", ":")) + "\n"
        (temporary / "manifest.json").write_text(text, encoding="utf-8")
    return sum(map(len, files.values())) + len(text)


def _is_piece(name: str) -> bool:
    return name.startswith(("data/passages/", "data/postings/"))


def _fixed_files(bundle: _Bundle, links: LinkTemplate | None) -> Files:
    """The files that do not depend on the number of dimensions."""
    words = word_index(bundle.words())
    texts = list(text_pieces(bundle.documents, bundle.cuts, links))
    start = {
        "rules": word_rules() | {"tokens": words.tokens},
        "words": words.firsts,
        "passages": [first for first, _ in texts],
        "counts": [len(cut) or 1 for cut in bundle.cuts] if any(bundle.cuts) else None,
    }
    pieces = {"postings": words.pieces, "passages": [content for _, content in texts]}
    return {
        "data/start.bin": _gzip(compact_json(start)),
        "data/lengths.bin": _gzip(words.lengths),
        "data/tokenizer.bin": _gzip(compact_json(tokenizer_rules(bundle.model.tokenizer))),
        "data/ids.bin": _gzip(compact_json([document.id for document in bundle.documents])),
    } | {
        f"data/{kind}/{number:05d}.bin": _gzip(content)
        for kind, contents in pieces.items()
        for number, content in enumerate(contents)
    }


def _fit_to_size(
    model: TwoTowersModel, vectors: Tensor, fixed: Files, dim: int | None, max_mb: float, with_graph: bool
) -> tuple[TwoTowersModel, Files]:
    """The model with ``dim`` dimensions, or with the most that fit into ``max_mb``, and the files of its vectors.

    ``vectors`` are those of the passages, with all dimensions.
    """
    sample = evenly_spaced(len(vectors), DIRECTIONS_FROM)
    entries = sum(_DIGEST if _is_piece(name) else _MANIFEST_ENTRY_BYTES for name in fixed)
    fixed_bytes = sum(map(len, fixed.values())) + entries + 10 * _MANIFEST_ENTRY_BYTES
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
    """The share of the ten best passages by ``vectors`` that are also among the ten best by ``site_vectors``.

    The queries are the first eight words of documents, evenly spaced in the corpus.
    """
    rows = evenly_spaced(len(documents), PROBES)
    probes = [" ".join((documents[row].title or documents[row].text).split()[:8]) for row in rows]
    exact = top_k(model.encode_queries(probes), vectors, 10).documents
    approximate = top_k(narrow.encode_queries(probes), site_vectors, 10).documents
    return float(
        np.mean([len(set(best) & set(hits)) / len(best) for best, hits in zip(exact, approximate, strict=True)])
    )


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, 6, mtime=0)
