"""A model for MTEB: the query tower encodes queries, the document tower everything else.

import mteb
from freemvmt.integrations.mteb import TwoTowersEncoder

mteb.evaluate(TwoTowersEncoder("models/pydocs"), mteb.get_tasks(["SciFact"]))
"""

from pathlib import Path
from typing import Any

import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType
from numpy.typing import NDArray

from freemvmt.model import TwoTowersModel
from freemvmt.runtime.optional import require

require("mteb")


class TwoTowersEncoder(AbsEncoder):
    """An encoder for MTEB; ``model`` is a folder, a name on the Hub, ``untrained``, or a model. ``name`` is the name
    under which MTEB stores results."""

    def __init__(
        self, model: str | Path | TwoTowersModel, revision: str | None = None, *, name: str | None = None, **_: Any
    ) -> None:
        self.model: Any = model if isinstance(model, TwoTowersModel) else TwoTowersModel.load(model)
        model_name = name or ("model" if isinstance(model, TwoTowersModel) else Path(model).name)
        parameter_count = sum(parameter.numel() for parameter in self.model.parameters())
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": model_name if "/" in model_name else f"two-towers/{model_name}",
                "revision": revision or self.model.digest()[:16],
                "embed_dim": self.model.dim,
                "max_tokens": self.model.config.max_length,
                "n_parameters": parameter_count,
                "similarity_fn_name": ScoringFunction.COSINE,
                "framework": ["PyTorch"],
            }
        )

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **_: Any,
    ) -> NDArray[np.float32]:
        """(texts, dim): by the query tower for the prompt type ``query``, else by the document tower."""
        texts = [text for batch in inputs for text in batch["text"]]
        is_query = prompt_type == PromptType.query
        encoded = (self.model.encode_queries if is_query else self.model.encode_documents)(texts)
        vectors: NDArray[np.float32] = encoded.cpu().numpy()
        return vectors
