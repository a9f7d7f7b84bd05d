"""The towers as ONNX graphs, run by onnxruntime: what serves a bundle where there is no PyTorch.

graphs = OnnxEncoder(Path("onnx/docs"))               # written by `two-towers export MODEL --format onnx`
vectors = graphs.encode_queries(["what is a tower"])  # (1, dim) float32
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freemvmt.data.ragged import TokenArray
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.data.values import texts_of
from freemvmt.errors import UserError
from freemvmt.runtime.optional import needed
from freemvmt.search.index.ranking import Vectors
from freemvmt.storage.manifest import Shape, check_seals, read_sealed

FORMAT = 1
_SHAPE: Shape = {
    "dim": int, "max_length": int, "document": str, "query": str, "files": {}, "model": {"id": str, "tokenizer": str},
}  # fmt: skip
_TOKENS = 16_384  # of one call, the places behind a text's end among them


class OnnxEncoder:
    """An ``Encoder`` (see there) of the graphs in ``folder``; ``model`` names the weights and tokenizer they are of.

    Raises ``UserError`` when a file is missing or was changed. Several threads may use it, each on one core.
    """

    def __init__(self, folder: Path) -> None:
        runtime = needed("onnxruntime")
        told = read_sealed(folder / "config.json", "two_towers_onnx", FORMAT, _SHAPE, "export --format onnx", "model")
        names = {told[side] for side in ("query", "document")}
        check_seals(folder, {name: told["files"].get(name) for name in (*names, "tokenizer.json")}, "export it again")
        self.dim: int = told["dim"]
        self.model: dict[str, str] = dict(told["model"])
        self.tokenizer = Tokenizer.from_file(folder / "tokenizer.json", told["max_length"], told.get("tokenizer"))
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # warnings of the runtime are not ours to show
        try:
            graphs = {
                name: runtime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
                for name in names
            }
        except Exception as error:  # the runtime's own kinds have no common ancestor below it
            raise UserError(f"{folder} cannot be read ({error}); export the model again") from error
        self._query, self._document = graphs[told["query"]], graphs[told["document"]]

    def encode_queries(self, queries: Iterable[str]) -> Vectors:
        """(n, dim), each of length 1. Raises ``TypeError`` as ``TwoTowersModel.encode_queries``."""
        return self.encode_query_tokens(self.tokenizer.encode(texts_of(queries)))

    def encode_documents(self, documents: Iterable[str]) -> Vectors:
        """As ``encode_queries``."""
        return self.encode_document_tokens(self.tokenizer.encode(texts_of(documents)))

    def encode_query_tokens(self, tokens: TokenArray) -> Vectors:
        """As ``encode_queries``."""
        return self._vectors(self._query, tokens)

    def encode_document_tokens(self, tokens: TokenArray) -> Vectors:
        """As ``encode_documents``."""
        return self._vectors(self._document, tokens)

    def _vectors(self, graph: Any, tokens: TokenArray) -> Vectors:
        vectors = np.empty((len(tokens), self.dim), np.float32)
        for rows, part in _blocks(tokens):
            (vectors[rows],) = graph.run(["embedding"], _inputs(part))
        return vectors

    def split_documents(self, tokens: TokenArray) -> Vectors:
        """What each token of one document adds to its vector, (tokens, dim).

        The vector is a weighted sum of what each token alone would give, over its length. ``UserError`` where the
        tower weighs more than tokens.
        """
        if "weights" not in {output.name for output in self._document.get_outputs()}:
            raise UserError("this graph's score cannot be split over the words of a text; one with weights can")
        if not len(tokens.ids):
            return np.zeros((0, self.dim), np.float32)
        weights, length = self._document.run(["weights", "length"], _inputs(tokens))
        distinct, places = np.unique(tokens.ids, return_inverse=True)
        alone = {
            "input_ids": distinct[:, None].astype(np.int64),
            "attention_mask": np.ones((len(distinct), 1), np.int64),
        }
        vectors, lengths = self._document.run(["embedding", "length"], alone)
        found: Vectors = (vectors * lengths)[places] * (weights[0] / length[0])[:, None]
        return found


def _blocks(tokens: TokenArray) -> Iterator[tuple[NDArray[np.int64], TokenArray]]:
    """All texts, by length, in blocks that are not too large when they are filled up."""
    order, start = np.argsort(tokens.lengths, kind="stable"), 0
    while start < len(order):
        width = max(int(tokens.lengths[order[start]]), 1)
        rows = order[start : start + max(1, _TOKENS // width)]
        # The last is the longest: fewer where it makes the others too wide.
        widths = np.maximum(tokens.lengths[rows], 1)
        rows = rows[: max(1, int((np.arange(1, len(rows) + 1) * widths <= _TOKENS).sum()))]
        yield rows, tokens.take(rows)
        start += len(rows)


def _inputs(tokens: TokenArray) -> dict[str, NDArray[np.int64]]:
    """``tokens`` as the graphs read them: (texts, tokens), filled up behind a text's end."""
    mask = np.arange(max(int(tokens.lengths.max(initial=0)), 1)) < tokens.lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = tokens.ids
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
