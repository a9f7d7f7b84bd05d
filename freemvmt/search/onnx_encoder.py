"""An encoder that runs the towers as ONNX graphs in onnxruntime, to serve a bundle without PyTorch.

graphs = OnnxEncoder(Path("onnx/docs"))               # written by `two-towers export MODEL --format onnx`
vectors = graphs.encode_queries(["what is a tower"])  # (1, dim) float32
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freemvmt.config import HYBRID_WEIGHT, TowerName
from freemvmt.data.ragged import TokenArray, length_groups
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.data.values import texts_of
from freemvmt.errors import UserError
from freemvmt.runtime.cores import cores
from freemvmt.runtime.optional import require
from freemvmt.search.index.ranking import Vectors
from freemvmt.storage.manifest import Shape, read_manifest, verify_files

FORMAT = 1
_SHAPE: Shape = {
    "dim": int, "max_length": int, "document": str, "query": str, "files": {}, "model": {"id": str, "tokenizer": str},
}  # fmt: skip
MAX_TOKENS = 2048  # in one call of a graph, padding included: what a layer makes fits the cache of a core


class OnnxEncoder:
    """An ``Encoder`` that runs the graphs in ``folder``; ``model`` is the identity of the exported model.

    Raises ``UserError`` when a file is missing or was changed. Several threads may use it; each encodes a few texts on
    one core.
    """

    def __init__(self, folder: Path) -> None:
        require("onnxruntime")
        config = read_manifest(
            folder / "config.json", "two_towers_onnx", FORMAT, _SHAPE, "export --format onnx", "model"
        )
        names = {config[side] for side in ("query", "document")}
        verify_files(
            folder, {name: config["files"].get(name) for name in (*names, "tokenizer.json")}, "export it again"
        )
        self.dim: int = config["dim"]
        self.hybrid_weight: float = config.get("hybrid_weight", HYBRID_WEIGHT)
        self.model: dict[str, str] = dict(config["model"])
        self.tokenizer = Tokenizer.from_file(folder / "tokenizer.json", config["max_length"], config.get("tokenizer"))
        self.document_tokens: int = config.get("document_tokens", config["max_length"])
        self._paths = folder / config["query"], folder / config["document"]
        self._query = open_graph(self._paths[0])

    @cached_property
    def _document(self) -> Any:
        """The graph of the document tower: only a server that encodes documents holds a transformer in memory."""
        query, document = self._paths
        return self._query if document == query else open_graph(document)

    def encode_queries(self, queries: Iterable[str]) -> Vectors:
        """(n, dim), each of length 1. Raises ``TypeError`` as ``TwoTowersModel.encode_queries`` does."""
        return self.encode_query_tokens(self.tokenizer.encode(texts_of(queries)))

    def encode_documents(self, documents: Iterable[str]) -> Vectors:
        """As ``encode_queries``."""
        return self.encode_document_tokens(self.tokenizer.encode(texts_of(documents)))

    def encode_query_tokens(self, tokens: TokenArray) -> Vectors:
        """As ``encode_queries``."""
        return self._encode(self._query, tokens)

    def encode_document_tokens(self, tokens: TokenArray) -> Vectors:
        """As ``encode_documents``."""
        return self._encode(self._document, tokens)

    def _encode(self, graph: Any, tokens: TokenArray) -> Vectors:
        vectors = np.empty((len(tokens), self.dim), np.float32)

        def fill(batch: tuple[NDArray[np.int64], TokenArray]) -> None:
            (vectors[batch[0]],) = graph.run(["embedding"], _inputs(batch[1]))

        batches = list(_batches(tokens))
        if len(batches) == 1:
            fill(batches[0])
        else:
            with ThreadPoolExecutor(cores()) as pool:
                list(pool.map(fill, batches))
        return vectors

    @property
    def split_side(self) -> TowerName | None:
        """The side whose graph gives the weights of its tokens, the documents first; None if neither does."""
        graphs: tuple[tuple[TowerName, Any], ...] = (("document", self._document), ("query", self._query))
        return next((side for side, graph in graphs if _has_weights(graph)), None)

    def split_documents(self, tokens: TokenArray) -> Vectors:
        """The contribution of each token of one document to the document's vector, (tokens, dim).

        ``UserError`` for a tower whose vector is no weighted sum of token vectors.
        """
        return _split(self._document, tokens, self.dim)

    def split_queries(self, tokens: TokenArray) -> Vectors:
        """As ``split_documents``, for a query."""
        return _split(self._query, tokens, self.dim)


def open_graph(path: Path) -> Any:
    """A session of onnxruntime for the graph in ``path``, each call on one core; ``UserError`` if it cannot be read."""
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: hide the warnings of onnxruntime
    try:
        return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the errors of onnxruntime have no other common base class
        raise UserError(f"{path} cannot be read ({error}); export the model again") from error


def _has_weights(graph: Any) -> bool:
    return "weights" in {output.name for output in graph.get_outputs()}


def _split(graph: Any, tokens: TokenArray, dim: int) -> Vectors:
    """The contribution of each token of one text to its vector, (tokens, dim).

    The vector is the weighted sum of the token vectors, divided by the length of that sum. The graph encodes each
    distinct token as a text of its own to get its token vector.
    """
    if not _has_weights(graph):
        raise UserError("this graph's score cannot be split over the words of a text; one with weights can")
    if not len(tokens.ids):
        return np.zeros((0, dim), np.float32)
    weights, length = graph.run(["weights", "length"], _inputs(tokens))
    distinct, positions = np.unique(tokens.ids, return_inverse=True)
    single_tokens = {
        "input_ids": distinct[:, None].astype(np.int64),
        "attention_mask": np.ones((len(distinct), 1), np.int64),
    }
    vectors, lengths = graph.run(["embedding", "length"], single_tokens)
    contributions: Vectors = (vectors * lengths)[positions] * (weights[0] / length[0])[:, None]
    return contributions


def _batches(tokens: TokenArray) -> Iterator[tuple[NDArray[np.int64], TokenArray]]:
    """(rows, texts) of batches, shortest texts first."""
    order = np.argsort(tokens.lengths, kind="stable")
    for start, stop in length_groups(tokens.lengths[order], MAX_TOKENS):
        yield order[start:stop], tokens.take(order[start:stop])


def _inputs(tokens: TokenArray) -> dict[str, NDArray[np.int64]]:
    """``tokens`` as inputs of a graph."""
    ids, is_token = tokens.padded()
    return {"input_ids": ids, "attention_mask": is_token.astype(np.int64)}
