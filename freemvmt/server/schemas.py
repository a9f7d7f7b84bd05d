"""What a request may hold. A body is read by pydantic's own JSON reader: strict, and no field beside these.

That reader refuses what is no UTF-8, half a surrogate pair, nesting beyond 200 and numbers beyond 4,300 digits, so
none of these reaches the package.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, RootModel

from freemvmt.config import HYBRID_WEIGHT, Method
from freemvmt.search.documents import LONGEST_ID

MOST_HITS = 1000  # k of one search
MOST_HITS_IN_BATCH = 100  # k of each search of a batch
LONGEST_QUERY = 10_000  # characters
MOST_IN_BATCH = 256  # queries of a batch, and texts to encode
MOST_DOCUMENTS = 1000  # added by one request
MOST_EXPLAINED = 100  # hits of a search


def _whole(value: object) -> object:
    """A float without a fraction is the integer that it is, in JSON as in its schemas."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


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
Id = Annotated[str, Field(min_length=1, max_length=LONGEST_ID, description="A document's id.")]
Hits = Annotated[
    int, Field(ge=1, le=MOST_HITS, description="So many hits, fewer when fewer match."), BeforeValidator(_whole)
]
HitsInBatch = Annotated[
    int, Field(ge=1, le=MOST_HITS_IN_BATCH, description="So many hits for each query."), BeforeValidator(_whole)
]
Weight = Annotated[float, Field(ge=0, le=1, description="Hybrid: the share of the dense side.")]

# Numbers that a 64-bit integer or float holds; of each field of a filter, `description` knows more.
_VALUE: dict[str, Any] = {"type": ["string", "number", "boolean"]}
_CONDITION: dict[str, Any] = {
    "anyOf": [
        _VALUE,
        {"type": "array", "items": _VALUE, "minItems": 1},
        {
            "type": "object",
            "properties": {name: {"type": ["string", "number"]} for name in ("gte", "gt", "lte", "lt")},
            "additionalProperties": False,
            "minProperties": 1,
        },
    ]
}


class Body(BaseModel):
    """A request's body."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Filter(RootModel[Annotated[dict[str, JsonValue], AfterValidator(_within_64_bits)]]):
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

    input: str | Annotated[list[str], Field(min_length=1, max_length=MOST_IN_BATCH)]
    model: str = Field("", description="Any name: there is one model.")
    input_type: Literal["query", "document"] = Field("query", description="Which tower encodes.")
    encoding_format: Literal["float", "base64"] = Field("float", description="base64: float32, little-endian.")
    user: str = Field("", description="Not used.")

    @property
    def texts(self) -> list[str]:
        """The texts, also when there is one."""
        return [self.input] if isinstance(self.input, str) else self.input
