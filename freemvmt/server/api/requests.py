"""What a request may hold. A body is read by pydantic's own JSON reader: strict, and no field beside these.

That reader refuses what is no UTF-8, half a surrogate pair, nesting beyond 200 and numbers beyond 4,300 digits, so
none of these reaches the package.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    RootModel,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from freemvmt.config import HYBRID_WEIGHT, Method
from freemvmt.data.documents import LONGEST_ID
from freemvmt.data.values import id_of
from freemvmt.errors import UserError

MOST_HITS = 1000  # k of one search
MOST_HITS_IN_BATCH = 100  # k of each search of a batch
LONGEST_QUERY = 10_000  # characters
MOST_IN_BATCH = 256  # queries of a batch
MOST_TEXTS = 2048  # to encode, as many as OpenAI takes; MOST_IN_BATCH at a time
MOST_DOCUMENTS = 1000  # added by one request
MOST_EXPLAINED = 100  # hits of a search


def _whole(value: object) -> object:
    """A float without a fraction is the integer that it is, in JSON as in its schemas."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _digits(value: object) -> object:
    """A whole number as the id that its digits are; ``UserError`` for what is no id."""
    try:
        return id_of(value, "id", "")
    except UserError as error:
        raise PydanticCustomError("id", "{wrong}", {"wrong": str(error).removeprefix(": ")}) from None


def _texts(value: object) -> object:
    """One text as a list of one. Token ids, which some clients send for texts, are refused in words that help."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list):
        raise PydanticCustomError("texts", "input should be a text or a list of texts")
    inner = listed[0] if listed else None
    inner = inner[0] if isinstance(inner, list) and inner else inner
    if isinstance(inner, int) and not isinstance(inner, bool):
        raise PydanticCustomError("token_ids", _IDS_NOT_TEXTS)
    return listed


_IDS_NOT_TEXTS = "send texts, not token ids, which are another model's (LangChain: check_embedding_ctx_length=False)"


def _conditions(given: dict[str, Any]) -> Any:
    """A filter without the bounds of ranges that are null, in numbers that can be compared with."""
    present = {
        name: {bound: value for bound, value in condition.items() if value is not None}
        if isinstance(condition, dict)
        else condition
        for name, condition in given.items()
    }
    return _within_64_bits(present)


def _within_64_bits(value: Any) -> Any:
    """A whole number beyond 64 bits as the float next to it: to compare with, it is as good."""
    if isinstance(value, dict):
        return {name: _within_64_bits(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_within_64_bits(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value) if abs(value) < 10**308 else math.inf  # which no filter takes
    return value


Query = Annotated[str, Field(max_length=LONGEST_QUERY, description="What is searched for.")]
Id = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST_ID),
    BeforeValidator(_digits),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "minLength": 1, "maxLength": LONGEST_ID}, {"type": "integer"}],
            "description": "A document's id; a whole number is its digits.",
        }
    ),
]
Texts = Annotated[
    list[str],
    Field(min_length=1, max_length=MOST_TEXTS),
    BeforeValidator(_texts),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MOST_TEXTS},
            ],
            "description": "One text or several.",
        }
    ),
]
Hits = Annotated[
    int, Field(ge=1, le=MOST_HITS, description="So many hits, fewer when fewer match."), BeforeValidator(_whole)
]
HitsInBatch = Annotated[
    int, Field(ge=1, le=MOST_HITS_IN_BATCH, description="So many hits for each query."), BeforeValidator(_whole)
]
Weight = Annotated[float, Field(ge=0, le=1, description="Hybrid: the share of the dense side.")]


def range_schema(bound: dict[str, Any]) -> dict[str, Any]:
    """The schema of a range, whose bounds have the schema ``bound``: one of them at least is there, and not null."""
    names = ("gte", "gt", "lte", "lt")
    return {
        "type": "object",
        "properties": {name: {"anyOf": [bound, {"type": "null"}]} for name in names},
        "additionalProperties": False,
        "anyOf": [{"properties": {name: bound}, "required": [name]} for name in names],
    }


# Numbers that a 64-bit integer or float holds; of each field of a filter, `description` knows more.
_VALUE: dict[str, Any] = {"type": ["string", "number", "boolean"]}
_CONDITION: dict[str, Any] = {
    "anyOf": [
        _VALUE,
        {"type": "array", "items": _VALUE, "minItems": 1},
        range_schema({"type": ["string", "number"]}),
    ]
}


def _or_null(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Say in a body's schema that null is taken wherever a field may be left out."""
    for name, field in schema["properties"].items():
        if name not in schema.get("required", []):
            about = {word: field.pop(word) for word in ("title", "description", "default") if word in field}
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}], **about}


class Body(BaseModel):
    """A request's body. Null says that a field is not there, as many clients write what they leave out."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, json_schema_extra=_or_null)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: value for name, value in given.items() if value is not None or name not in optional}


class Filter(RootModel[Annotated[dict[str, JsonValue], AfterValidator(_conditions)]]):
    """Conditions on metadata, all of which must hold: a value, a list of values, or a range (gte, gt, lte, lt). A list
    in a document is met by one of its members; text compares without case."""

    model_config = ConfigDict(strict=True, json_schema_extra={"additionalProperties": _CONDITION})


class Metadata(RootModel[dict[str, JsonValue]]):
    """Fields of a document. Text, numbers, booleans and lists of these can be filtered on; a field has one kind."""

    model_config = ConfigDict(strict=True, json_schema_extra={"propertyNames": {"minLength": 1}})


_NO_FILTER = Filter({})
_NO_METADATA = Metadata({})


class SearchRequest(Body):
    """One query."""

    query: Query
    k: Hits = 10
    method: Method = "hybrid"
    weight: Weight = HYBRID_WEIGHT
    filter: Filter = _NO_FILTER
    explain: bool = Field(False, description=f"Explain the first {MOST_EXPLAINED} hits.")


class BatchRequest(Body):
    """Several queries, searched alike."""

    queries: Annotated[list[Query], Field(min_length=1, max_length=MOST_IN_BATCH)]
    k: HitsInBatch = 10
    method: Method = "hybrid"
    weight: Weight = HYBRID_WEIGHT
    filter: Filter = _NO_FILTER


class SimilarRequest(Body):
    """A document whose neighbours are looked for."""

    id: Id
    k: Hits = 10
    filter: Filter = _NO_FILTER


class ExplainRequest(Body):
    """A query, and the document that it found."""

    query: Query
    id: Id


class NewDocument(Body):
    """A document to add, or to put in the place of the one of its id."""

    id: Id
    text: str
    title: str = ""
    metadata: Metadata = _NO_METADATA


class AddRequest(Body):
    """Documents to add."""

    documents: Annotated[list[NewDocument], Field(min_length=1, max_length=MOST_DOCUMENTS)]


class EmbeddingsRequest(Body):
    """Texts to encode, in the shape of OpenAI's API, with the side of the two towers beside it."""

    input: Texts
    model: str = Field("", description="Any name: there is one model.")
    input_type: Literal["query", "document"] = Field("query", description="Which tower encodes.")
    encoding_format: Literal["float", "base64"] = Field("float", description="base64: float32, little-endian.")
    dimensions: Annotated[int, Field(ge=1), BeforeValidator(_whole)] | None = Field(
        None, description="Numbers of a vector: the model's own, or a size that it was trained to be cut to."
    )
    user: str = Field("", description="Not used.")
