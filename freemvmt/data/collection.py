"""A test collection: documents, queries and graded judgements."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from freemvmt.data.examples import Examples
from freemvmt.data.values import folded, passage_id
from freemvmt.storage.digests import digest_of

Qrels = dict[str, dict[str, int]]  # query id -> document id -> grade; above 0 is relevant


@dataclass(frozen=True, eq=False)
class Collection:
    """Documents, queries and graded judgements, on which a retriever is evaluated.

    ``pools`` maps a query id to the document ids of its own row, if the data has such candidates. ``own`` maps a
    query id to the document id that its ranking leaves out; None: ``self_matches`` decides. ``titles``, if any, are
    those with which the documents begin; they stand before each passage of a document that is cut.
    """

    name: str
    document_ids: list[str]
    documents: list[str]
    query_ids: list[str]
    queries: list[str]
    qrels: Qrels
    pools: dict[str, list[str]] = field(default_factory=dict)
    own: dict[str, str] | None = None
    titles: list[str] = field(default_factory=list)

    @functools.cached_property
    def self_matches(self) -> dict[str, str]:
        """Query id -> id of the document that is the query itself. The query's ranking leaves that document out.

        By default it is a document with the query's id and text that is not judged relevant, as in ArguAna and Quora.
        """
        if self.own is not None:
            return self.own
        query_texts = dict(zip(self.query_ids, self.queries, strict=True))
        return {
            id: id
            for id, text in zip(self.document_ids, self.documents, strict=True)
            if id in query_texts and folded(text) == folded(query_texts[id]) and self.qrels[id].get(id, 0) <= 0
        }

    def texts_of_self_matches(self) -> dict[str, str]:
        """Query (folded) -> text of the document that is the query itself."""
        if not self.self_matches:
            return {}
        document_texts = dict(zip(self.document_ids, self.documents, strict=True))
        query_texts = dict(zip(self.query_ids, self.queries, strict=True))
        return {folded(query_texts[query]): document_texts[id] for query, id in self.self_matches.items()}

    def ignoring_identical_ids(self, ignore: bool | None) -> "Collection":
        """The same collection with another rule for the document that a ranking leaves out.

        True: the document with the query's id. False: none. None: the rule of ``self_matches``.
        """
        if ignore is None:
            return self
        return replace(self, own={id: id for id in {*self.query_ids} & {*self.document_ids}} if ignore else {})

    def fingerprint(self) -> str:
        """A hash of documents, queries and judgements. Two results are comparable if their hashes are equal."""
        texts = itertools.chain(self.document_ids, self.documents, self.query_ids, self.queries)
        grades = (repr(sorted(self.qrels[query].items())) for query in self.query_ids)
        return digest_of(itertools.chain((text + "\0" for text in texts), grades), size=8)


def to_collection(
    held_out: Examples,
    name: str,
    corpus: Sequence[str] | None = None,
    self_match_texts: Mapping[str, str] | None = None,
) -> Collection:
    """A collection from examples. Its documents are the passages of the examples and the texts of ``corpus``.

    A document's id is its ``passage_id``. A positive has grade 1. ``self_match_texts`` maps a query (folded) to the
    text of the document that is the query itself.
    """
    ids = [passage_id(text) for text in held_out.passages]
    documents = dict(zip(ids, held_out.passages, strict=True))
    documents.update((passage_id(text), text) for text in corpus or ())
    query_ids = [str(number) for number in range(len(held_out.queries))]
    qrels, pools, own = {}, {}, {}
    for number, query in enumerate(query_ids):
        positives = [ids[passage] for passage in held_out.positives[number]]
        qrels[query] = dict.fromkeys(positives, 1)
        pools[query] = positives + [ids[passage] for passage in held_out.negatives[number]]
        if self_match_texts and (text := self_match_texts.get(folded(held_out.queries[number]))) is not None:
            own[query] = passage_id(text)
    return Collection(name, list(documents), list(documents.values()), query_ids, held_out.queries, qrels, pools, own)


def merge(collections: Sequence[Collection]) -> Collection:
    """One collection of all documents and all queries.

    Query ids are prefixed with the number of their collection. A document keeps its id, unless an earlier collection
    has another text under that id; then its id gets the same prefix.
    """
    if len(collections) == 1:
        return collections[0]
    documents: dict[str, str] = {}
    query_ids: list[str] = []
    qrels: Qrels = {}
    pools: dict[str, list[str]] = {}
    own: dict[str, str] = {}
    for number, collection in enumerate(collections):
        new_ids: dict[str, str] = {}
        for old_id, text in zip(collection.document_ids, collection.documents, strict=True):
            new_ids[old_id] = old_id if documents.get(old_id, text) == text else f"{number}:{old_id}"
            documents[new_ids[old_id]] = text
        for query in collection.query_ids:
            query_ids.append(f"{number}:{query}")
            qrels[query_ids[-1]] = {new_ids[old_id]: grade for old_id, grade in collection.qrels[query].items()}
            pools[query_ids[-1]] = [new_ids[old_id] for old_id in collection.pools.get(query, [])]
            if query in collection.self_matches:
                own[query_ids[-1]] = new_ids[collection.self_matches[query]]
    return Collection(
        name=" + ".join(collection.name for collection in collections),
        document_ids=list(documents),
        documents=list(documents.values()),
        query_ids=query_ids,
        queries=[query for collection in collections for query in collection.queries],
        qrels=qrels,
        pools=pools,
        own=own,
    )
