"""The request bodies. Pydantic's JSON parser reads them strictly and allows no other fields.

The parser refuses invalid UTF-8, half a surrogate pair, nesting beyond 200 levels and numbers beyond 4,300 digits, so
none of these reaches the rest of the package.
"""

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

from freemvmt.config import MAX_RERANKED, Method
from freemvmt.data.documents import MAX_ID_BYTES
from freemvmt.data.values import id_of
from freemvmt.errors import UserError

MAX_HITS = 1000  # k of one search
MAX_HITS_IN_BATCH = 100  # k of each search of a batch
MAX_QUERY_CHARACTERS = 10_000  # characters
MAX_BATCH_QUERIES = 256  # queries of a batch
MAX_TEXTS = 2048  # texts to encode, as many as OpenAI allows; MAX_BATCH_QUERIES at a time
MAX_DOCUMENTS = 1000  # documents added by one request
MAX_EXPLAINED = 100  # hits of a search with an explanation


def float_to_int(value: object) -> object:
    """A float without a fraction as an integer: JSON Schema does not tell them apart."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _int_to_id(value: object) -> object:
    """The id of a document; the id of an integer is its digits. ``PydanticCustomError`` when the value is no id."""
    try:
        return id_of(value, "id", "")
    except UserError as error:
        raise PydanticCustomError("id", "{wrong}", {"wrong": str(error).removeprefix(": ")}) from None


def _to_texts(value: object) -> object:
    """A list of texts; one text becomes a list. Token ids, which some clients send, get a message that helps."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        raise PydanticCustomError("texts", "input should be a text or a list of texts")
    first = texts[0] if texts else None
    first = first[0] if isinstance(first, list) and first else first
    if isinstance(first, int) and not isinstance(first, bool):
        raise PydanticCustomError("token_ids", _IDS_NOT_TEXTS)
    return texts


def _check_rerank(value: object) -> object:
    """Whether hits are scored again, or how many of them."""
    depth = float_to_int(value)
    if isinstance(depth, bool) or (isinstance(depth, int) and 1 <= depth <= MAX_RERANKED):
        return depth
    raise PydanticCustomError("rerank", f"input should be true, false, or a number of hits from 1 to {MAX_RERANKED}")


_IDS_NOT_TEXTS = "send texts, not token ids, which are another model's (LangChain: check_embedding_ctx_length=False)"


def _filter_conditions(conditions: dict[str, Any]) -> Any:
    """The conditions of a filter, without bounds that are null, and with whole numbers as integers."""
    without_nulls = {
        name: {bound: value for bound, value in condition.items() if value is not None}
        if isinstance(condition, dict)
        else condition
        for name, condition in conditions.items()
    }
    return _floats_to_ints(without_nulls)


def _floats_to_ints(value: Any) -> Any:
    """``value`` with ``float_to_int`` applied to all it holds: 1e20 is refused like the digits that it stands for."""
    if isinstance(value, dict):
        return {name: _floats_to_ints(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_floats_to_ints(item) for item in value]
    return float_to_int(value)


Query = Annotated[str, Field(max_length=MAX_QUERY_CHARACTERS, description="What is searched for.")]
Id = Annotated[
    str,
    Field(min_length=1, max_length=MAX_ID_BYTES),
    BeforeValidator(_int_to_id),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES}, {"type": "integer"}],
            "description": "A document's id; a whole number is its digits.",
        }
    ),
]
Texts = Annotated[
    list[str],
    Field(min_length=1, max_length=MAX_TEXTS),
    BeforeValidator(_to_texts),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_TEXTS},
            ],
            "description": "One text or several.",
        }
    ),
]
Hits = Annotated[
    int, Field(ge=1, le=MAX_HITS, description="So many hits, fewer when fewer match."), BeforeValidator(float_to_int)
]
HitsInBatch = Annotated[
    int, Field(ge=1, le=MAX_HITS_IN_BATCH, description="So many hits for each query."), BeforeValidator(float_to_int)
]
Passages = Annotated[bool, Field(description="Find passages: several of one long document, if they are the best.")]
Rerank = Annotated[
    bool | int,
    BeforeValidator(_check_rerank),
    WithJsonSchema(
        {
            "anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 1, "maximum": MAX_RERANKED}],
            "description": "Whether the cross-encoder scores the best hits again, or how many of them.",
        }
    ),
]
Weight = Annotated[float, Field(ge=0, le=1, description="Hybrid: the share of the dense side.")]


def range_schema(bound: dict[str, Any]) -> dict[str, Any]:
    """The schema of a range: at least one bound that is not null; ``bound`` is the schema of a bound."""
    names = ("gte", "gt", "lte", "lt")
    return {
        "type": "object",
        "properties": {name: {"anyOf": [bound, {"type": "null"}]} for name in names},
        "additionalProperties": False,
        "anyOf": [{"properties": {name: bound}, "required": [name]} for name in names],
    }


# The general schema of a condition; `openapi` replaces it with one for each field of the bundle.
_VALUE: dict[str, Any] = {"type": ["string", "number", "boolean"]}
_CONDITION: dict[str, Any] = {
    "anyOf": [
        _VALUE,
        {"type": "array", "items": _VALUE, "minItems": 1},
        range_schema({"type": ["string", "number"]}),
    ]
}


def _or_null(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Allow null in a body's schema for every optional field."""
    for name, field in schema["properties"].items():
        if name not in schema.get("required", []):
            annotations = {key: field.pop(key) for key in ("title", "description", "default") if key in field}
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}], **annotations}


class Body(BaseModel):
    """A request's body. Null says that a field is not there, as many clients write what they leave out."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, json_schema_extra=_or_null)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: value for name, value in body.items() if value is not None or name not in optional}


class Filter(RootModel[Annotated[dict[str, JsonValue], AfterValidator(_filter_conditions)]]):
    """Conditions on metadata, all of which must hold: a value, a list of values, or a range (gte, gt, lte, lt). A list
    in a document is met by one of its members; text compares without case."""

    model_config = ConfigDict(strict=True, json_schema_extra={"additionalProperties": _CONDITION})


class Metadata(RootModel[dict[str, JsonValue]]):
    """Fields of a document. Text, numbers, booleans and lists of these can be filtered on; a field has one kind."""

    model_config = ConfigDict(strict=True, json_schema_extra={"propertyNames": {"minLength": 1}})


NO_FILTER = Filter({})
_NO_METADATA = Metadata({})


class SearchRequest(Body):
    """One query."""

    query: Query
    k: Hits = 10
    method: Method = "hybrid"
    weight: Weight | None = None
    filter: Filter = NO_FILTER
    passages: Passages = False
    explain: bool = Field(False, description=f"Explain the first {MAX_EXPLAINED} hits.")
    rerank: Rerank | None = None


class BatchRequest(Body):
    """Several queries, searched alike."""

    queries: Annotated[list[Query], Field(min_length=1, max_length=MAX_BATCH_QUERIES)]
    k: HitsInBatch = 10
    method: Method = "hybrid"
    weight: Weight | None = None
    filter: Filter = NO_FILTER
    passages: Passages = False


class SimilarRequest(Body):
    """A document whose neighbours are looked for."""

    id: Id
    k: Hits = 10
    filter: Filter = NO_FILTER


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

    documents: Annotated[list[NewDocument], Field(min_length=1, max_length=MAX_DOCUMENTS)]


class EmbeddingsRequest(Body):
    """Texts to encode, in the shape of OpenAI's API, with the side of the two towers beside it."""

    input: Texts
    model: str = Field("", description="Any name: there is one model.")
    input_type: Literal["query", "document"] = Field("query", description="Which tower encodes.")
    encoding_format: Literal["float", "base64"] = Field("float", description="base64: float32, little-endian.")
    dimensions: Annotated[int, Field(ge=1), BeforeValidator(float_to_int)] | None = Field(
        None, description="Numbers of a vector: the model's own, or a size that it was trained to be cut to."
    )
    user: str = Field("", description="Not used.")
