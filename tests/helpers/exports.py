"""Models of every form, and texts, that an export must give the same vectors for."""

import itertools
from typing import Any

import torch

from freemvmt.config import ModelConfig
from freemvmt.model import TwoTowersModel

TEXTS = [
    "how tall is the tower",
    "naïve café ÅNGSTRÖM İstanbul 東京都 👩‍👩‍👧‍👦",
    "[CLS] is [MASK] a word",
    "",
    "   ",
    "river mountain " * 300,  # longer than is kept
    "x" * 300,
]


CELLS = ("gru", "lstm")


VARIANTS: dict[str, dict[str, Any]] = {
    "average": {},
    "average, head": {"dim": 20},
    "average, apart": {"separate_towers": True, "dim": 12},
    **{
        f"{cell}, {layers}, {'both ways' if both else 'one way'}": {
            "cell": cell,
            "layers": layers,
            "bidirectional": both,
        }
        for cell, layers, both in itertools.product(CELLS, (1, 2), (True, False))
    },
    **{
        f"{cell}, mean, {residual}": {"cell": cell, "pooling": "mean", "residual": residual, "dim": 16}
        for cell, residual in itertools.product(CELLS, (True, False))
    },
    "gru, both": {"cell": "gru", "pooling": "both", "dim": 16},
    "gru, two kinds": {"cell": "gru", "document_tower": "average", "pooling": "both"},
    "gru, apart": {"cell": "gru", "separate_towers": True, "shared_table": True},
    "transformer": {"tower": "transformer"},
    "transformer, apart": {"tower": "transformer", "separate_towers": True},
    "average, transformer": {"query_tower": "average", "document_tower": "transformer"},
    "gru, transformer": {"cell": "gru", "query_tower": "recurrent", "document_tower": "transformer"},
    "transformer, average": {"query_tower": "transformer", "document_tower": "average"},
}


def base_of(variant: str, tiny_base: str, tiny_encoder: str) -> str:
    """The base that a variant needs."""
    return tiny_encoder if "transformer" in variant else tiny_base


def made(base: str, changes: dict[str, Any]) -> TwoTowersModel:
    recurrent = {"tower": "recurrent", "hidden": 8} if "cell" in changes else {}
    model = TwoTowersModel(ModelConfig(base=base, max_length=40, **recurrent, **changes))
    with torch.no_grad():
        for name, weight in model.tensors().items():
            if not name.endswith(("table", "scale")):
                weight.add_(torch.randn_like(weight) * 0.3)
    return model
