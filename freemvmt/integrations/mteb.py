"""For MTEB: a model in the two roles that retrieval asks for.

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
from freemvmt.runtime.optional import needed

needed("mteb")


class TwoTowersEncoder(AbsEncoder):
    """``model``: a folder, a name on the Hub, ``untrained``, or the model itself. ``name`` is what results are kept
    under."""

    def __init__(
        self, model: str | Path | TwoTowersModel, revision: str | None = None, *, name: str | None = None, **_: Any
    ) -> None:
        self.model: Any = model if isinstance(model, TwoTowersModel) else TwoTowersModel.load(model)
        called = name or ("model" if isinstance(model, TwoTowersModel) else Path(model).name)
        weights = sum(weight.numel() for weight in self.model.parameters())
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": called if "/" in called else f"two-towers/{called}",
                "revision": revision or self.model.digest().hexdigest()[:16],
                "embed_dim": self.model.dim,
                "max_tokens": self.model.config.max_length,
                "n_parameters": weights,
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
        """(texts, dim): by the query tower what MTEB calls queries, all else by the document tower."""
        texts = [text for batch in inputs for text in batch["text"]]
        is_query = prompt_type == PromptType.query
        made = (self.model.encode_queries if is_query else self.model.encode_documents)(texts)
        vectors: NDArray[np.float32] = made.cpu().numpy()
        return vectors
