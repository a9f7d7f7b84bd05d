"""What a retriever is measured on: documents, queries, and graded judgements."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from freemvmt.data.examples import Examples
from freemvmt.data.values import folded, passage_id

Qrels = dict[str, dict[str, int]]  # query id -> document id -> grade; above 0 is relevant


@dataclass(frozen=True, eq=False)
class Collection:
    """What a retriever is measured on: documents, queries, graded judgements.

    ``pools``, where rows named candidates, holds for each query id the document ids of its own row. ``own`` maps a
    query id to the id of the document that is left out of its ranking; None: see ``self_matches``.
    """

    name: str
    document_ids: list[str]
    documents: list[str]
    query_ids: list[str]
    queries: list[str]
    qrels: Qrels
    pools: dict[str, list[str]] = field(default_factory=dict)
    own: dict[str, str] | None = None

    @functools.cached_property
    def self_matches(self) -> dict[str, str]:
        """Query id -> id of the document that is the query itself, which no ranking of that query holds.

        By default a document with the query's id and text, as in ArguAna and Quora, unless it is judged relevant.
        """
        if self.own is not None:
            return self.own
        asked = dict(zip(self.query_ids, self.queries, strict=True))
        return {
            id: id
            for id, text in zip(self.document_ids, self.documents, strict=True)
            if id in asked and folded(text) == folded(asked[id]) and self.qrels[id].get(id, 0) <= 0
        }

    def texts_of_self_matches(self) -> dict[str, str]:
        """For each query (folded) the text of the document that is the query itself, if there is one."""
        if not self.self_matches:
            return {}
        texts = dict(zip(self.document_ids, self.documents, strict=True))
        asked = dict(zip(self.query_ids, self.queries, strict=True))
        return {folded(asked[query]): texts[id] for query, id in self.self_matches.items()}

    def ignoring_identical_ids(self, ignore: bool | None) -> "Collection":
        """The same collection, where each query leaves out the document with its id (True), or none (False), or by
        the rule of ``self_matches`` (None)."""
        if ignore is None:
            return self
        return replace(self, own={id: id for id in {*self.query_ids} & {*self.document_ids}} if ignore else {})

    def fingerprint(self) -> str:
        """A hash of documents, queries and judgements: equal for two results that may be compared."""
        digest = hashlib.blake2b(digest_size=8)
        for texts in (self.document_ids, self.documents, self.query_ids, self.queries):
            for text in texts:
                digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
        for query in self.query_ids:
            digest.update(repr(sorted(self.qrels[query].items())).encode())
        return digest.hexdigest()


def to_collection(
    held_out: Examples, name: str, corpus: Sequence[str] | None = None, itself: Mapping[str, str] | None = None
) -> Collection:
    """A collection from examples: their queries over ``corpus``, by default over the passages that they name.

    Passages are known by ``passage_id``; answers have grade 1. ``itself`` maps a query (folded) to the text of the
    document that is the query itself.
    """
    ids = [passage_id(text) for text in held_out.passages]
    documents = dict(zip(ids, held_out.passages, strict=True))
    documents.update((passage_id(text), text) for text in corpus or ())
    query_ids = [str(number) for number in range(len(held_out.queries))]
    qrels, pools, own = {}, {}, {}
    for number, query in enumerate(query_ids):
        answers = [ids[passage] for passage in held_out.positives[number]]
        qrels[query] = dict.fromkeys(answers, 1)
        pools[query] = answers + [ids[passage] for passage in held_out.negatives[number]]
        if itself and (text := itself.get(folded(held_out.queries[number]))) is not None:
            own[query] = passage_id(text)
    return Collection(name, list(documents), list(documents.values()), query_ids, held_out.queries, qrels, pools, own)


def merge(collections: Sequence[Collection]) -> Collection:
    """One collection of all documents and all queries; query ids are numbered by collection.

    A document keeps its id unless an earlier collection gives that id to another text.
    """
    if len(collections) == 1:
        return collections[0]
    documents: dict[str, str] = {}
    query_ids: list[str] = []
    qrels: Qrels = {}
    pools: dict[str, list[str]] = {}
    own: dict[str, str] = {}
    for number, part in enumerate(collections):
        new_id: dict[str, str] = {}
        for old, text in zip(part.document_ids, part.documents, strict=True):
            new_id[old] = old if documents.get(old, text) == text else f"{number}:{old}"
            documents[new_id[old]] = text
        for query in part.query_ids:
            query_ids.append(f"{number}:{query}")
            qrels[query_ids[-1]] = {new_id[old]: grade for old, grade in part.qrels[query].items()}
            pools[query_ids[-1]] = [new_id[old] for old in part.pools.get(query, [])]
            if query in part.self_matches:
                own[query_ids[-1]] = new_id[part.self_matches[query]]
    return Collection(
        name=" + ".join(part.name for part in collections),
        document_ids=list(documents),
        documents=list(documents.values()),
        query_ids=query_ids,
        queries=[query for part in collections for query in part.queries],
        qrels=qrels,
        pools=pools,
        own=own,
    )
