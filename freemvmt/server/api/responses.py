"""The response bodies, for the OpenAPI description. Responses are plain dicts, not validated against these models."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from freemvmt.config import Method
from freemvmt.server.http.errors import ErrorKind


class Answer(BaseModel):
    """An answer: all of its fields, and no other."""

    model_config = ConfigDict(extra="forbid")


class Error(Answer):
    """Why a request was refused."""

    type: ErrorKind
    message: str
    request_id: str


class ErrorAnswer(Answer):
    """Every answer with a status of 400 or more."""

    error: Error


class Piece(Answer):
    """A piece of a text, and its share of the score."""

    text: str
    share: float


class Explanation(Answer):
    """The score (a cosine) split over title and text, or over the query where the documents' tower is a transformer:
    the shares add up to it."""

    score: float
    title: list[Piece]
    text: list[Piece]
    query: list[Piece]


class Place(Answer):
    """Where a passage stands in its document: the headings above it, its page if the document has pages, its first and
    last line, and its characters, from ``start`` to ``stop``, in the document's text."""

    trail: str
    page: int | None
    lines: tuple[int, int]
    start: int
    stop: int


class FoundDocument(Answer):
    """A document that was found; ``dense`` is a cosine, ``bm25`` a BM25 score, null where that side did not find it.
    Of a document that is too long to be read at once, ``text`` is its best passage, and ``place`` says where it is.
    ``rerank`` is there only where a cross-encoder read the document: its score, which is ``score`` too."""

    id: str
    score: float
    dense: float | None
    bm25: float | None
    title: str
    text: str
    metadata: dict[str, Any]
    place: Place | None = None
    rerank: float | None = None
    explanation: Explanation | None = None


class SearchAnswer(Answer):
    """Hits, best first."""

    query: str
    method: Method
    k: int
    took_ms: float
    documents: int
    hits: list[FoundDocument]


class BatchAnswer(Answer):
    """The hits of each query, in the order of the queries."""

    results: list[list[FoundDocument]]
    method: Method
    k: int
    took_ms: float


class SimilarAnswer(Answer):
    """The neighbours of a document."""

    id: str
    hits: list[FoundDocument]
    took_ms: float


class ExplainAnswer(Explanation):
    """Why a document matches a query."""

    id: str


class AddAnswer(Answer):
    """``documents`` is how many there are now, ``unseen`` what no filter sees: {field: {what it holds: documents}}."""

    added: int
    replaced: int
    documents: int
    unseen: dict[str, dict[str, int]]


class DeleteAnswer(Answer):
    """``documents`` is how many there are now."""

    deleted: str
    documents: int


class DocumentAnswer(Answer):
    """A document."""

    id: str
    title: str
    text: str
    metadata: dict[str, Any]


class Embedding(Answer):
    """A vector of length 1 (zeros for a text without a token): numbers, or the base64 of its float32, little-endian."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(Answer):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(Answer):
    """Vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class Model(Answer):
    """The one model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsAnswer(Answer):
    """The models."""

    object: Literal["list"]
    data: list[Model]


class Field(Answer):
    """A field of the metadata; of text, its most frequent values, and of dates alone (ISO 8601) their years."""

    type: Literal["string", "number", "boolean"]
    values: list[str] | None = None
    years: list[str] | None = None


class Limits(Answer):
    """The most that a request may ask for."""

    k: int
    query_characters: int
    batch: int
    batch_k: int
    embeddings: int
    documents: int
    body_bytes: int


class Rerank(Answer):
    """The cross-encoder, and how many of the best hits it scores again where a request does not say."""

    model: str
    depth: int


class InfoAnswer(Answer):
    """What is served."""

    name: str
    documents: int
    dim: int
    model: dict[str, Any]
    index: dict[str, Any]
    fields: dict[str, Field]
    methods: list[Method]
    rerank: Rerank | None = None
    writable: bool
    limits: Limits


class HealthAnswer(Answer):
    """The process lives."""

    status: Literal["ok"]


class ReadyAnswer(Answer):
    """The bundle answers."""

    status: Literal["ready"]
    documents: int
