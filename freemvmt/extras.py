"""Libraries that only some commands need: imported when they are, and named with their extra when they are missing."""

import importlib
from typing import Any

from freemvmt.errors import UserError

_EXTRA_OF = {"faiss": "serve", "tantivy": "serve", "fastapi": "serve", "uvicorn": "serve", "prometheus_client": "serve"}


def needed(module: str) -> Any:
    """The module of that name; ``UserError`` names the extra that brings it when it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        extra = _EXTRA_OF[module]
        raise UserError(f"this needs {module}, which is not installed; install two-towers[{extra}]") from error
