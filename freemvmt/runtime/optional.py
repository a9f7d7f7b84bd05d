"""Libraries that only some commands need: imported when they are, and named with their extra when they are missing."""

import importlib
from typing import Any

from freemvmt.errors import UserError

_EXTRA_OF = {
    "faiss": "serve", "fastapi": "serve", "uvicorn": "serve", "prometheus_client": "serve",
    "pymilvus": "milvus", "milvus_lite": "milvus", "ray": "ray", "onnx": "export",
    "onnxruntime": "serve-lite",
    "langchain_core": "langchain", "llama_index.core": "llama-index", "mteb": "mteb",
}  # fmt: skip


def needed(module: str) -> Any:
    """The module of that name; ``UserError`` names the extra that brings it when it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name not in (module, module.partition(".")[0]):
            raise
        extra = _EXTRA_OF[module]
        raise UserError(f"this needs {module}, which is not installed; install two-towers[{extra}]") from error
