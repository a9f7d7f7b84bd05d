"""What each tool takes, and what it gives: pydantic models, whose JSON Schemas a client gets with the list of tools."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from freemvmt.config import Method
from freemvmt.server.api.requests import NO_FILTER, Body, Filter, Id, Query, float_to_int

MAX_HITS = 50  # k of one search: more are no help to a model, which reads all of them


def _parsed(value: object) -> object:
    """The object in a text of JSON, which some models send in its place."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _without_titles(schema: dict[str, Any]) -> None:
    """Drop pydantic's titles, which say a field's name once more."""
    for part in (schema, *schema["properties"].values()):
        part.pop("title", None)


class Arguments(Body):
    """The arguments of a tool. Null says that one is not there."""

    model_config = ConfigDict(json_schema_extra=_without_titles)


class Answer(BaseModel):
    """What a tool returns, or a part of it."""

    model_config = ConfigDict(json_schema_extra=_without_titles)


Count = Annotated[
    int,
    Field(ge=1, le=MAX_HITS, description="So many documents, fewer when fewer match."),
    BeforeValidator(float_to_int),
]
# `description` replaces the schema with one for the fields of the bundle.
Conditions = Annotated[Filter, BeforeValidator(_parsed), WithJsonSchema({"type": "object"})]
Cut = Annotated[str, Field(description="What was left out to keep the answer short; empty: nothing.")]
Fields = Annotated[dict[str, Any], Field(description="The fields of the document.")]


class SearchArguments(Arguments):
    """One query."""

    query: Query
    k: Count = 10
    method: Annotated[
        Method, Field(description="hybrid: both. dense: by meaning. bm25: by words, for names and codes.")
    ] = "hybrid"
    filter: Conditions = NO_FILTER


class GetArguments(Arguments):
    """A document, and where to read on."""

    id: Id
    start: Annotated[
        int,
        Field(ge=0, description="The character of the text to begin with: `next_start` of the part before."),
        BeforeValidator(float_to_int),
    ] = 0


class SimilarArguments(Arguments):
    """A document whose neighbours are looked for."""

    id: Id
    k: Count = 10


class ExplainArguments(Arguments):
    """A query, and a document that it found."""

    query: Query
    id: Id


class PassagePlace(Answer):
    """Where a passage stands in its document; ``start`` and ``stop`` are characters, as `get` counts them."""

    trail: Annotated[str, Field(description="The headings above it, the outermost first.")]
    page: int | None
    lines: tuple[int, int]
    start: int
    stop: int


class FoundDocument(Answer):
    """A document that was found."""

    id: str
    title: str
    score: float
    text: str
    place: Annotated[PassagePlace | None, Field(description="Of a long document: where the text stands in it.")]
    metadata: Fields
    cut: Cut


class SearchAnswer(Answer):
    """The documents that were found, best first."""

    documents: Annotated[int, Field(description="How many documents are searched.")]
    hits: list[FoundDocument]


class DocumentAnswer(Answer):
    """A document, or a part of a long one."""

    id: str
    title: str
    text: str
    start: Annotated[int, Field(description="The character of the whole text that this one begins with.")]
    next_start: Annotated[int | None, Field(description="The `start` to read on from; null: this is the end.")]
    characters: Annotated[int, Field(description="The length of the whole text.")]
    metadata: Fields
    cut: Cut


class Word(Answer):
    """A word with its share of a score."""

    word: str
    share: float


class ExplainAnswer(Answer):
    """The cosine of a query and a document, split over the words of one of them."""

    id: str
    score: Annotated[float, Field(description="The cosine: the sum of all shares.")]
    side: Annotated[str, Field(description="Whose words these are: the document's or the query's.")]
    words: Annotated[list[Word], Field(description="Those with the largest shares.")]
    rest: Annotated[float, Field(description="The shares of all other words together.")]
