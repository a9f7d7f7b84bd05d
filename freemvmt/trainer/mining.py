"""Negatives that are hard: passages that a ranking holds for near, without those that may well be answers.

What stands first in a ranking and is not known to be an answer often is one that nobody marked. So the first ranks are
passed over, and what is nearly as near as the answer is left out (Qu et al. 2021, RocketQA; de Souza et al. 2024,
NV-Retriever: a bound relative to the positive's score).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from freemvmt.config import MiningConfig
from freemvmt.data.examples import Examples
from freemvmt.data.ragged import IdLists
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import Bar
from freemvmt.search.index.bm25 import BM25
from freemvmt.search.index.exact import top_k
from freemvmt.trainer.dataset import TrainingData

_BLOCK = 256  # queries at once: some 90 candidates of each have their vectors looked up together

_Ranks = Callable[[slice], NDArray[np.int64]]  # queries -> (queries, last - first) passages, -1: none


@dataclass(frozen=True, eq=False)
class Mined:
    """For each query its negatives, best first, and what became of the candidates."""

    negatives: IdLists
    candidates: int
    known: int  # that are known to answer their query
    identical: int  # that are the query itself
    near: int  # that a filter took for answers


def mine(model: TwoTowersModel, data: TrainingData, config: MiningConfig, bar: Bar | None = None) -> Mined:
    """Negatives for each query of ``data.examples``, at most ``config.count``, among all its passages.

    Memory beside the vectors stays flat: queries go by in blocks. ``data.teacher_vectors`` is needed where ``config``
    asks for a teacher's word. ``bar`` advances by queries.
    """
    examples = data.examples
    queries, passages = model.encode_query_tokens(data.queries), model.encode_document_tokens(data.passages)
    rankings = _rankings(config, examples, queries, passages)
    judges = [(queries, passages)]
    if config.teacher and data.teacher_vectors is not None:
        judges.append((torch.from_numpy(data.teacher_vectors.queries), torch.from_numpy(data.teacher_vectors.passages)))
    lists, ids = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    candidates = known = identical = near = 0
    for start in range(0, len(queries), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(queries)))
        answers = examples.positives.slice(block.start, block.stop)
        found = _merged([ranks(block) for ranks in rankings])  # (block, candidates)
        is_answer = _members(found, answers)
        kept = (found >= 0) & ~_members(found, examples.never_negatives.slice(block.start, block.stop))
        candidates, known = candidates + int((found >= 0).sum()), known + int(is_answer.sum())
        identical += int(((found >= 0) & ~is_answer & ~kept).sum())
        for judge in judges:
            bound = (1 - config.margin) * _farthest(judge, block, answers)
            far = _cosines(judge, block, found.clip(min=0)) < bound
            near += int((kept & ~far).sum())
            kept &= far
        rows, columns = (kept & (kept.cumsum(axis=1) <= config.count)).nonzero()
        lists.append(rows + start)
        ids.append(found[rows, columns])
        if bar is not None:
            bar.advance(block.stop - start)
    negatives = IdLists.from_pairs(np.concatenate(lists), np.concatenate(ids), len(queries))
    return Mined(negatives, candidates, known, identical, near)


def _rankings(config: MiningConfig, examples: Examples, queries: Tensor, passages: Tensor) -> list[_Ranks]:
    first, last = config.first_rank - 1, config.last_rank

    def by_model(block: slice) -> NDArray[np.int64]:
        return top_k(queries[block], passages, last).documents[:, first:]

    if config.by == "model":
        return [by_model]
    lexical = BM25(examples.passages)

    def by_words(block: slice) -> NDArray[np.int64]:
        return lexical.rank(examples.queries[block], last).documents[:, first:]

    return [by_words] if config.by == "bm25" else [by_model, by_words]


def _merged(rankings: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """One ranking of several, (queries, candidates), in turns; what stood there before is -1."""
    joined = np.stack(rankings, axis=2).reshape(len(rankings[0]), -1)
    if len(rankings) == 1:
        return joined
    order = np.argsort(joined, axis=1, kind="stable")
    ordered = np.take_along_axis(joined, order, 1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = -1
    np.put_along_axis(joined, order, ordered, 1)
    return joined


def _members(found: NDArray[np.int64], answers: IdLists) -> NDArray[np.bool_]:
    """Which of the passages ``found`` (queries, candidates) are among the answers of their query."""
    size = max(int(found.max(initial=0)), int(answers.ids.max(initial=0))) + 1
    rows = np.arange(len(answers))
    codes = np.repeat(rows, answers.lengths) * size + answers.ids
    within: NDArray[np.bool_] = np.isin(rows[:, None] * size + found, codes) & (found >= 0)
    return within


def _cosines(judge: tuple[Tensor, Tensor], block: slice, passages: NDArray[np.int64]) -> NDArray[np.float32]:
    """Of the queries of ``block`` with their ``passages`` (queries, any)."""
    queries, of_passages = judge[0][block].float(), judge[1]
    vectors = of_passages[torch.from_numpy(passages).to(of_passages.device)].float()
    cosines: NDArray[np.float32] = torch.einsum("qd,qcd->qc", queries, vectors).cpu().numpy()
    return cosines


def _farthest(judge: tuple[Tensor, Tensor], block: slice, answers: IdLists) -> NDArray[np.float32]:
    """The least cosine of each query of ``block`` with its answers, of which it has one at least, (queries, 1)."""
    width = int(answers.lengths.max())
    place = answers.offsets[:-1, None] + np.minimum(np.arange(width), answers.lengths[:, None] - 1)
    least: NDArray[np.float32] = _cosines(judge, block, answers.ids[place].astype(np.int64)).min(1, keepdims=True)
    return least
