"""Error analysis: the queries on which a model lost most against BM25, with both rankings and the decisive words."""

from collections import defaultdict
from dataclasses import dataclass, field

from freemvmt.data.collection import Collection
from freemvmt.evaluation.metrics import Result
from freemvmt.evaluation.runs import Run, in_trec_order
from freemvmt.runtime.console import Console, count_of, shorten
from freemvmt.search.retriever import Retriever

SHOWN = 3  # documents of each ranking
_WORDS = 8  # shown of an explanation


@dataclass(frozen=True)
class Ranked:
    """A document in a ranking; ``grade`` is its judgement, 0 if it was not judged."""

    rank: int
    id: str
    score: float
    grade: int
    text: str


@dataclass(frozen=True)
class Reason:
    """Why a document is near the query: its ``cosine``, and the words with the largest shares of it.

    The share of a word is the sum over all its occurrences in the document.
    """

    id: str
    cosine: float
    words: list[tuple[str, float]]


@dataclass(frozen=True)
class LostQuery:
    """A query on which BM25 did better: NDCG@10 and the first documents of both rankings.

    ``answer`` is the relevant document that BM25 ranks first, ``rank`` its rank by the model (None: not in its run).
    ``reasons`` explain the model's first document that is not relevant, and the answer.
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


def lost_queries(
    ours: tuple[Result, Run],
    bm25: tuple[Result, Run],
    collection: Collection,
    count: int,
    explained_by: Retriever | None = None,
) -> list[LostQuery]:
    """The ``count`` queries with the largest loss of NDCG@10, largest first, or all lost queries if there are fewer.

    ``explained_by`` is a retriever over the collection's documents; without it ``reasons`` are empty. Raises
    ``UserError`` when the model's score cannot be split over words.
    """
    pairs = zip(ours[0].per_query["ndcg@10"].tolist(), bm25[0].per_query["ndcg@10"].tolist(), strict=True)
    scored = sorted(enumerate(pairs), key=lambda item: item[1][0] - item[1][1])
    texts = dict(zip(collection.document_ids, collection.documents, strict=True))
    lost = []
    for number, (ndcg, bm25_ndcg) in scored[:count]:
        if ndcg >= bm25_ndcg:
            break
        query_id, query = collection.query_ids[number], collection.queries[number]
        grades = collection.qrels[query_id]
        model_ranking, bm25_ranking = (_ranking(run.get(query_id, {}), grades, texts) for _, run in (ours, bm25))
        # BM25 did better, so its ranking has a relevant document.
        answer = next(document.id for document in bm25_ranking if document.grade > 0)
        wrong_answer = next((document.id for document in model_ranking if document.grade <= 0), None)
        reasons = []
        if explained_by is not None:
            reasons = [_reason(explained_by, query, id) for id in (wrong_answer, answer) if id is not None]
        rank = next((document.rank for document in model_ranking if document.id == answer), None)
        lost.append(
            LostQuery(
                query_id, query, ndcg, bm25_ndcg, model_ranking[:SHOWN], bm25_ranking[:SHOWN], answer, rank, reasons
            )
        )
    return lost


def _ranking(scores: dict[str, float], grades: dict[str, int], texts: dict[str, str]) -> list[Ranked]:
    return [
        Ranked(rank, id, round(score, 6), grades.get(id, 0), " ".join(texts[id].split()))
        for rank, (id, score) in enumerate(in_trec_order(scores), start=1)
    ]


def _reason(retriever: Retriever, query: str, id: str) -> Reason:
    explanation = retriever.explain(query, id)
    shares: defaultdict[str, float] = defaultdict(float)
    for piece in (*explanation.title, *explanation.text, *explanation.query):
        if piece.share:
            shares[piece.text.lower()] += piece.share
    largest = sorted(shares.items(), key=lambda item: -abs(item[1]))[:_WORDS]
    return Reason(id, round(explanation.score, 6), [(word, round(share, 6)) for word, share in largest])


def print_lost_queries(lost: list[LostQuery], method: str, queries: int, console: Console) -> None:
    """Print the queries with both rankings; ``*`` marks a relevant document."""
    console.line()
    console.line(f"lost most against BM25: {len(lost)} of {count_of(queries, 'query', 'queries')} (* is relevant)")
    for number, query in enumerate(lost, start=1):
        console.line()
        console.line(f"{number:>3}  {shorten(query.query, 100)}")
        console.line(f"     ndcg@10 {query.ndcg:.3f}, BM25 {query.bm25_ndcg:.3f}   query {query.query_id}")
        for name, ranking in ((method, query.ranking), ("BM25", query.bm25)):
            for position, document in enumerate(ranking):
                mark = "*" if document.grade > 0 else " "
                line = (
                    f"{document.rank} {mark} {document.score:7.3f}  {shorten(f'[{document.id}] {document.text}', 80)}"
                )
                console.line(f"     {name if not position else '':<7} {line}")
        where = f"{method} has it at rank {query.rank}" if query.rank else f"not in {method}'s run"
        console.line(f"     answer  [{query.answer}] {where}")
        for reason in query.reasons:
            words = "  ".join(f"{word} {share:+.3f}" for word, share in reason.words)
            console.line(f"     why     [{reason.id}] cosine {reason.cosine:.3f}: {words}")
