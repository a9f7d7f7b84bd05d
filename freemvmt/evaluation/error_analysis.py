"""Error analysis: the queries on which a model lost most against BM25, both rankings, and the words that decided."""

from collections import defaultdict
from dataclasses import dataclass, field

from freemvmt.data.collection import Collection
from freemvmt.evaluation.metrics import Result
from freemvmt.evaluation.runs import Run, ranked
from freemvmt.runtime.console import Console, cut
from freemvmt.search.retriever import Retriever

SHOWN = 3  # documents of each ranking
_WORDS = 8  # of an explanation


@dataclass(frozen=True)
class Ranked:
    """A document in a ranking; ``grade`` is its judgement, 0 where it has none."""

    rank: int
    id: str
    score: float
    grade: int
    text: str


@dataclass(frozen=True)
class Reason:
    """How near a document is to the query: ``cosine``, and the words with the largest shares of it, which may stand in
    the document more than once."""

    id: str
    cosine: float
    words: list[tuple[str, float]]


@dataclass(frozen=True)
class Loss:
    """A query on which BM25 did better: NDCG@10 and the first documents of both.

    ``answer`` is the relevant document that BM25 ranks first, ``rank`` where the model has it (None: not in its run).
    ``reasons`` are those of the model's first document that is not relevant, and of the answer.
    """

    query_id: str
    query: str
    ndcg: float
    bm25_ndcg: float
    ranking: list[Ranked]
    bm25: list[Ranked]
    answer: str
    rank: int | None
    reasons: list[Reason] = field(default_factory=list)


def losses(
    ours: tuple[Result, Run],
    bm25: tuple[Result, Run],
    collection: Collection,
    count: int,
    explained_by: Retriever | None = None,
) -> list[Loss]:
    """The ``count`` queries with the largest loss of NDCG@10, largest first; fewer where fewer lost.

    With ``explained_by``, a retriever over the collection's documents, each has its reasons. Raises ``UserError`` when
    the model's score cannot be split over words.
    """
    pairs = zip(ours[0].per_query["ndcg@10"].tolist(), bm25[0].per_query["ndcg@10"].tolist(), strict=True)
    scored = sorted(enumerate(pairs), key=lambda item: item[1][0] - item[1][1])
    texts = dict(zip(collection.document_ids, collection.documents, strict=True))
    found = []
    for number, (ndcg, bm25_ndcg) in scored[:count]:
        if ndcg >= bm25_ndcg:
            break
        query_id, query = collection.query_ids[number], collection.queries[number]
        grades = collection.qrels[query_id]
        own, words = (_ranking(run.get(query_id, {}), grades, texts) for _, run in (ours, bm25))
        answer = next(one.id for one in words if one.grade > 0)  # there is one: BM25 has won
        wrong = next((one.id for one in own if one.grade <= 0), None)
        reasons = []
        if explained_by is not None:
            reasons = [_reason(explained_by, query, id) for id in (wrong, answer) if id is not None]
        rank = next((one.rank for one in own if one.id == answer), None)
        found.append(Loss(query_id, query, ndcg, bm25_ndcg, own[:SHOWN], words[:SHOWN], answer, rank, reasons))
    return found


def _ranking(scores: dict[str, float], grades: dict[str, int], texts: dict[str, str]) -> list[Ranked]:
    return [
        Ranked(rank, id, round(score, 6), grades.get(id, 0), " ".join(texts[id].split()))
        for rank, (id, score) in enumerate(ranked(scores), start=1)
    ]


def _reason(retriever: Retriever, query: str, id: str) -> Reason:
    explanation = retriever.explain(query, id)
    shares: defaultdict[str, float] = defaultdict(float)
    for piece in (*explanation.title, *explanation.text):
        if piece.share:
            shares[piece.text.lower()] += piece.share
    largest = sorted(shares.items(), key=lambda item: -abs(item[1]))[:_WORDS]
    return Reason(id, round(explanation.score, 6), [(word, round(share, 6)) for word, share in largest])


def show(lost: list[Loss], method: str, queries: int, console: Console) -> None:
    """Print them; ``*`` marks a relevant document."""
    console.line()
    console.line(f"lost most against BM25: {len(lost)} of {queries:,} queries (* is relevant)")
    for number, one in enumerate(lost, start=1):
        console.line()
        console.line(f"{number:>3}  {cut(one.query, 100)}")
        console.line(f"     ndcg@10 {one.ndcg:.3f}, BM25 {one.bm25_ndcg:.3f}   query {one.query_id}")
        for name, ranking in ((method, one.ranking), ("BM25", one.bm25)):
            for place, document in enumerate(ranking):
                mark = "*" if document.grade > 0 else " "
                said = f"{document.rank} {mark} {document.score:7.3f}  {cut(f'[{document.id}] {document.text}', 80)}"
                console.line(f"     {name if not place else '':<7} {said}")
        where = f"{method} has it at rank {one.rank}" if one.rank else f"not in {method}'s run"
        console.line(f"     answer  [{one.answer}] {where}")
        for reason in one.reasons:
            words = "  ".join(f"{word} {share:+.3f}" for word, share in reason.words)
            console.line(f"     why     [{reason.id}] cosine {reason.cosine:.3f}: {words}")
