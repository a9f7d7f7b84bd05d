"""Libraries that only some commands need: imported on demand; the error for a missing one names its extra."""

import importlib
from typing import Any

from freemvmt.errors import UserError

_EXTRA_OF = {
    "faiss": "serve", "fastapi": "serve", "uvicorn": "serve", "prometheus_client": "serve",
    "pymilvus": "milvus", "milvus_lite": "milvus", "ray": "ray",
    "onnx": "export", "sentence_transformers": "export", "onnxruntime": "serve-lite",
    "langchain_core": "langchain", "llama_index.core": "llama-index", "mteb": "mteb", "mcp": "mcp",
    "markdown_it": "files", "selectolax.lexbor": "files", "pypdfium2": "files", "docx": "files",
    "charset_normalizer": "files", "pathspec": "files",
}  # fmt: skip


def require(module: str) -> Any:
    """Import the module; ``UserError`` with the name of its extra if it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name not in (module, module.partition(".")[0]):
            raise
        extra = _EXTRA_OF[module]
        raise UserError(f"this needs {module}, which is not installed; install two-towers[{extra}]") from error
