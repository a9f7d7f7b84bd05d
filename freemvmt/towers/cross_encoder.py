"""A cross-encoder in PyTorch: a sequence classifier of ``transformers`` that reads a query and a text together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from freemvmt.errors import UserError, first_line
from freemvmt.runtime.devices import pick_device
from freemvmt.runtime.threads import in_threads
from freemvmt.storage.sentence_config import read_json
from freemvmt.towers.transformer import silenced


class CrossEncoder:
    """The classifier in ``folder``, in float32. No code of the folder is run. ``UserError`` if it is none."""

    def __init__(self, folder: Path, device: str) -> None:
        self._device = pick_device(device)
        self._model = _classifier(folder).to(self._device).train(False)
        self._names = ["input_ids", "attention_mask"]
        if getattr(self._model.config, "type_vocab_size", 0) > 1:
            self._names.append("token_type_ids")

    def __call__(self, inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """(texts, outputs), the outputs for each pair of a query and a text. Several threads may call it."""
        with torch.inference_mode():
            outputs = self._model(**{name: torch.from_numpy(inputs[name]).to(self._device) for name in self._names})
            logits: NDArray[np.float32] = outputs.logits.cpu().numpy()
            return logits

    def in_threads(self, work: Any, pieces: range, threads: int) -> None:
        """Call ``work`` with each of ``pieces``: on a CPU in ``threads`` threads."""
        in_threads(work, pieces, threads if self._device.type == "cpu" else 1)


def _classifier(folder: Path) -> Any:
    import transformers

    settings = dict(read_json(folder / "config.json"))
    settings.pop("auto_map", None)  # code in the folder
    try:
        with silenced(transformers.logging):
            config = transformers.CONFIG_MAPPING[settings["model_type"]].from_dict(settings)
            model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
                folder, config=config, local_files_only=True, use_safetensors=True, dtype=torch.float32,
                output_loading_info=True,
            )  # fmt: skip
    except Exception as error:  # each library below raises its own errors
        reason = first_line(error)
        raise UserError(f"{folder} holds no sequence classifier ({reason}); give a cross-encoder") from error
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"{folder} lacks weights of a classifier ({missing[0]}); give a cross-encoder")
    return model
