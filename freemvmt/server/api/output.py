"""Explanations and whole responses as JSON in UTF-8."""

import json
import math
from typing import Any

import orjson

from freemvmt.search.explain import Explanation


def explanation_fields(explanation: Explanation) -> dict[str, Any]:
    """The fields of an explanation, as in ``responses.Explanation``."""
    pieces = {
        side: [{"text": piece.text, "share": piece.share} for piece in getattr(explanation, side)]
        for side in ("title", "text", "query")
    }
    return {"score": explanation.score, **pieces}


def dumps(response: dict[str, Any]) -> bytes:
    """``response`` as JSON in UTF-8; half a surrogate pair becomes ``?``, NaN and infinity become null."""
    try:
        return orjson.dumps(response, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # text that is not valid UTF-8, or an integer beyond 64 bits
        return json.dumps(_without_nan(response), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
