"""Hard negatives: passages that rank high for a query, without those that are probably answers.

The first passages of a ranking are often answers that nobody has marked. So the first ranks are skipped, and passages
whose score is close to the positive's are left out (Qu et al. 2021, RocketQA; de Souza et al. 2024, NV-Retriever: a
bound relative to the positive's score).
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

_BLOCK = 256  # queries at a time: the vectors of about 90 candidates for each are in memory

_RankFunction = Callable[[slice], NDArray[np.int64]]  # queries -> (queries, last - first) passages, -1: none


@dataclass(frozen=True, eq=False)
class MinedNegatives:
    """The negatives of each query, best first, with counts of the candidates."""

    negatives: IdLists
    candidates: int
    known: int  # candidates left out as known answers
    identical: int  # candidates left out as the query itself
    near: int  # candidates left out as probable answers


def mine(model: TwoTowersModel, data: TrainingData, config: MiningConfig, bar: Bar | None = None) -> MinedNegatives:
    """Mine at most ``config.count`` negatives for each query of ``data.examples``, among all its passages.

    Queries are processed in blocks, so memory beside the vectors is constant. ``data.teacher_vectors`` is needed if
    ``config.teacher`` is set. ``bar`` advances by queries.
    """
    examples = data.examples
    queries, passages = model.encode_query_tokens(data.queries), model.encode_document_tokens(data.passages)
    rankings = _rankings(config, examples, queries, passages)
    scorers = [(queries, passages)]
    if config.teacher and data.teacher_vectors is not None:
        scorers.append(
            (torch.from_numpy(data.teacher_vectors.queries), torch.from_numpy(data.teacher_vectors.passages))
        )
    lists, ids = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    candidates = known = identical = near = 0
    for start in range(0, len(queries), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(queries)))
        answers = examples.positives.slice(block.start, block.stop)
        ranked = _interleave([rank(block) for rank in rankings])  # (block, candidates)
        is_answer = _is_among(ranked, answers)
        eligible = (ranked >= 0) & ~_is_among(ranked, examples.never_negatives.slice(block.start, block.stop))
        candidates, known = candidates + int((ranked >= 0).sum()), known + int(is_answer.sum())
        identical += int(((ranked >= 0) & ~is_answer & ~eligible).sum())
        for scorer in scorers:
            bound = (1 - config.margin) * _lowest_positive(scorer, block, answers)
            below_bound = _cosines(scorer, block, ranked.clip(min=0)) < bound
            near += int((eligible & ~below_bound).sum())
            eligible &= below_bound
        rows, columns = (eligible & (eligible.cumsum(axis=1) <= config.count)).nonzero()
        lists.append(rows + start)
        ids.append(ranked[rows, columns])
        if bar is not None:
            bar.advance(block.stop - start)
    negatives = IdLists.from_pairs(np.concatenate(lists), np.concatenate(ids), len(queries))
    return MinedNegatives(negatives, candidates, known, identical, near)


def _rankings(config: MiningConfig, examples: Examples, queries: Tensor, passages: Tensor) -> list[_RankFunction]:
    first, last = config.first_rank - 1, config.last_rank

    def by_model(block: slice) -> NDArray[np.int64]:
        return top_k(queries[block], passages, last).documents[:, first:]

    if config.by == "model":
        return [by_model]
    lexical = BM25(examples.passages)

    def by_bm25(block: slice) -> NDArray[np.int64]:
        return lexical.rank(examples.queries[block], last).documents[:, first:]

    return [by_bm25] if config.by == "bm25" else [by_model, by_bm25]


def _interleave(rankings: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Several rankings interleaved into one, (queries, candidates); repeated passages are -1."""
    joined = np.stack(rankings, axis=2).reshape(len(rankings[0]), -1)
    if len(rankings) == 1:
        return joined
    order = np.argsort(joined, axis=1, kind="stable")
    ordered = np.take_along_axis(joined, order, 1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = -1
    np.put_along_axis(joined, order, ordered, 1)
    return joined


def _is_among(passages: NDArray[np.int64], answers: IdLists) -> NDArray[np.bool_]:
    """Which of the ``passages`` (queries, candidates) are among the ``answers`` of their query."""
    size = max(int(passages.max(initial=0)), int(answers.ids.max(initial=0))) + 1
    rows = np.arange(len(answers))
    codes = np.repeat(rows, answers.lengths) * size + answers.ids
    within: NDArray[np.bool_] = np.isin(rows[:, None] * size + passages, codes) & (passages >= 0)
    return within


def _cosines(scorer: tuple[Tensor, Tensor], block: slice, passages: NDArray[np.int64]) -> NDArray[np.float32]:
    """The cosines of the queries of ``block`` with their ``passages`` (queries, any)."""
    queries, passage_vectors = scorer[0][block].float(), scorer[1]
    vectors = passage_vectors[torch.from_numpy(passages).to(passage_vectors.device)].float()
    cosines: NDArray[np.float32] = torch.einsum("qd,qcd->qc", queries, vectors).cpu().numpy()
    return cosines


def _lowest_positive(scorer: tuple[Tensor, Tensor], block: slice, answers: IdLists) -> NDArray[np.float32]:
    """The lowest cosine of each query of ``block`` with its answers, of which it has at least one, (queries, 1)."""
    width = int(answers.lengths.max())
    position = answers.offsets[:-1, None] + np.minimum(np.arange(width), answers.lengths[:, None] - 1)
    lowest: NDArray[np.float32] = _cosines(scorer, block, answers.ids[position].astype(np.int64)).min(1, keepdims=True)
    return lowest
