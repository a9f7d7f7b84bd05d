"""A cross-encoder reads a query and a text together; it scores the best hits of a search again.

reranker = Reranker("cross-encoder/ms-marco-MiniLM-L6-v2")
reranker.scores("how tall is the tower", ["It is 300 metres tall.", "Bread is baked."])  # each between 0 and 1

retriever.reranker = reranker
retriever.search("how tall is the tower", k=10)  # the best 10 of the 50 that the reranker read
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from freemvmt.config import RerankConfig
from freemvmt.data.ragged import length_groups
from freemvmt.data.values import content_of, texts_of
from freemvmt.errors import UserError, first_line
from freemvmt.runtime.console import count_of
from freemvmt.runtime.cores import cores
from freemvmt.search.hits import Hit
from freemvmt.search.onnx_encoder import open_graph
from freemvmt.storage import hub
from freemvmt.storage.files import storable
from freemvmt.storage.sentence_config import read_json

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

_MAX_TOKENS = 1024  # in a batch, padding included: small enough that 50 texts are a few batches for each core
_PADDED = ("camembert", "longformer", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl")  # see `_positions`
_PROBE = ("a", ["a", "a b"])  # a query and texts that every cross-encoder can score

Inputs = Mapping[str, NDArray[np.int64]]  # input_ids, attention_mask, token_type_ids: each (texts, tokens)


class _Model(Protocol):
    """A cross-encoder in PyTorch or as an ONNX graph."""

    def __call__(self, inputs: Inputs, /) -> NDArray[np.float32]:
        """(texts, outputs)."""

    def in_threads(self, work: Callable[[int], object], pieces: range, threads: int, /) -> None:
        """Call ``work`` with each of ``pieces`` in ``threads`` threads."""


class Reranker:
    """The cross-encoder ``name``: a folder, or a name on the Hub.

    It is a sequence classifier of `transformers` with one output, or with two of which the second means relevant, in
    safetensors or as an ONNX graph (model.onnx). A graph needs no PyTorch. Where a query and a text have more than
    ``max_length`` tokens together, the text is cut, and the query beyond half of them. ``threads`` score at once on a
    CPU; None: one a core. Raises ``UserError`` when the model is no cross-encoder. Several threads may use it.
    """

    def __init__(self, name: str, max_length: int = 512, device: str = "auto", threads: int | None = None) -> None:
        weights, folder = hub.cross_encoder_files(name, "--rerank")
        self.name = folder.resolve().name if hub.local_folder(name) else name
        self._threads = threads or cores()
        self._tokenizer = _tokenizer_of(folder / "tokenizer.json")
        config = _config_of(folder)
        self._padding = int(config.get("pad_token_id") or 0)
        special = self._tokenizer.num_special_tokens_to_add(is_pair=True)
        self._room = min(max_length, _positions(config)) - special
        if self._room < 2:
            length = count_of(self._room + special, "token")
            raise UserError(f"{self.name} reads {length}, too few for a query and a text; give another")
        self._model: _Model = _Graph(weights) if weights.suffix == ".onnx" else _classifier(folder, device)
        self._check()

    def scores(self, query: str, texts: Iterable[str]) -> list[float]:
        """How relevant each text is to the query, between 0 and 1: the sigmoid of the model's output.

        Where the model has two outputs, it is the probability of the second.
        """
        pairs = self._pairs(query, texts_of(texts))
        lengths = np.array([len(pair.ids) for pair in pairs], np.int64)
        order = np.argsort(lengths, kind="stable")
        groups = list(length_groups(lengths[order], _MAX_TOKENS))[::-1]  # the longest first: threads end together
        logits = np.empty(len(pairs))

        def score(group: int) -> None:
            rows = order[slice(*groups[group])]
            outputs = self._model(_inputs([pairs[row] for row in rows], self._padding))
            logits[rows] = outputs[:, -1] - (outputs[:, 0] if outputs.shape[1] == 2 else 0)

        self._model.in_threads(score, range(len(groups)), self._threads)
        relevance: list[float] = np.exp(-np.logaddexp(0, -logits)).tolist()
        return relevance

    def _pairs(self, query: str, texts: Sequence[str]) -> "list[Encoding]":
        """The tokens of the query with each text, special ones included."""
        texts = [storable(text) for text in (query, query, *texts)]
        whole, half, *others = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        half.truncate(self._room // 2)
        pairs = []
        for other in others:
            first = whole if len(whole.ids) + len(other.ids) <= self._room else half
            other.truncate(self._room - len(first.ids))
            pairs.append(self._tokenizer.post_process(first, other))
        return pairs

    def _check(self) -> None:
        """Score two texts; ``UserError`` unless the model has one or two outputs, which are numbers."""
        try:
            outputs = self._model(_inputs(self._pairs(*_PROBE), self._padding))
        except Exception as error:  # the errors of PyTorch, onnxruntime and models have no other common base class
            reason = first_line(error)
            raise UserError(f"{self.name} cannot score a query and a text ({reason}); give a cross-encoder") from error
        if outputs.ndim != 2 or outputs.shape[1] not in (1, 2):
            what = f"{outputs.shape[1]} outputs" if outputs.ndim == 2 else "vectors as its outputs"
            raise UserError(
                f"{self.name} has {what}; give a cross-encoder, which has one, or two (not relevant, relevant)"
            )
        if not np.isfinite(outputs).all():
            raise UserError(f"{self.name} gives scores that are no numbers; fetch the model again")


def load_reranker(config: RerankConfig, threads: int | None = None) -> Reranker | None:
    """The cross-encoder that the flags name; None if they name none."""
    config.check_rerank()
    return None if config.rerank is None else Reranker(config.rerank, threads=threads)


def rerank_hits(reranker: Reranker, query: str, hits: Sequence[Hit], depth: int) -> list[Hit]:
    """The first ``depth`` hits by the reranker's scores, best first; then the others, in their order."""
    scores = reranker.scores(query, [content_of(hit.title, hit.text) for hit in hits[:depth]])
    scored = [replace(hit, score=score, rerank=score) for hit, score in zip(hits, scores, strict=False)]
    return sorted(scored, key=lambda hit: -hit.score) + list(hits[depth:])


class _Graph:
    """The ONNX graph of a cross-encoder."""

    def __init__(self, path: Path) -> None:
        self._session = open_graph(path)
        self._names = [given.name for given in self._session.get_inputs()]
        outputs = [output.name for output in self._session.get_outputs()]
        self._output = "logits" if "logits" in outputs else outputs[0]

    def __call__(self, inputs: Inputs) -> NDArray[np.float32]:
        """(texts, outputs)."""
        (outputs,) = self._session.run([self._output], {name: inputs[name] for name in self._names})
        as_float: NDArray[np.float32] = outputs.astype(np.float32)
        return as_float

    def in_threads(self, work: Callable[[int], object], pieces: range, threads: int) -> None:
        """Call ``work`` with each of ``pieces`` in ``threads`` threads."""
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, pieces))


def _classifier(folder: Path, device: str) -> _Model:
    try:
        from freemvmt.towers.cross_encoder import CrossEncoder
    except ModuleNotFoundError as error:
        hint = "install two-towers whole, or give a cross-encoder as a graph (model.onnx)"
        raise UserError(f"{folder} needs {error.name}, which is not installed; {hint}") from error
    return CrossEncoder(folder, device)


def _tokenizer_of(path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises plain Exception
        raise UserError(f"{path} cannot be read ({error}); give a sound tokenizer.json") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _config_of(folder: Path) -> dict[str, Any]:
    """The content of config.json; empty where a graph has none."""
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if not isinstance(config, dict):
        raise UserError(f"{folder / 'config.json'} holds no JSON object; fetch the model again")
    return config


def _positions(config: Mapping[str, Any]) -> int:
    """The tokens that a model reads. In RoBERTa and its like, the first positions are for padding."""
    positions = int(config.get("max_position_embeddings") or 512)
    return positions - (int(config.get("pad_token_id", 1)) + 1 if config.get("model_type") in _PADDED else 0)


def _inputs(pairs: "Sequence[Encoding]", padding: int) -> Inputs:
    width = max(len(pair.ids) for pair in pairs)

    def padded(lists: list[list[int]], value: int) -> NDArray[np.int64]:
        return np.array([[*numbers, *[value] * (width - len(numbers))] for numbers in lists], np.int64)

    return {
        "input_ids": padded([pair.ids for pair in pairs], padding),
        "attention_mask": padded([pair.attention_mask for pair in pairs], 0),
        "token_type_ids": padded([pair.type_ids for pair in pairs], 0),
    }
