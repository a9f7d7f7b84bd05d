"""What was found, as JSON in UTF-8, whatever is in it."""

import json
import math
from typing import Any

import orjson

from freemvmt.search.explain import Explanation
from freemvmt.search.hits import Hit


def hit_fields(hit: Hit) -> dict[str, Any]:
    """A document that was found, as ``answers.Found`` describes it."""
    return {
        "id": hit.id,
        "score": hit.score,
        "dense": hit.dense,
        "bm25": hit.bm25,
        "title": hit.title,
        "text": hit.text,
        "metadata": hit.metadata,
    }


def explanation_fields(explained: Explanation) -> dict[str, Any]:
    """An explanation, as ``answers.Explanation`` describes it."""
    pieces = {
        side: [{"text": piece.text, "share": piece.share} for piece in getattr(explained, side)]
        for side in ("title", "text")
    }
    return {"score": explained.score, **pieces}


def dumps(answer: dict[str, Any]) -> bytes:
    """``answer`` as JSON in UTF-8, whatever is in it: half a surrogate pair becomes ``?``, NaN null."""
    try:
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # what is no UTF-8, or a whole number beyond 64 bits
        return json.dumps(_finite(answer), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
