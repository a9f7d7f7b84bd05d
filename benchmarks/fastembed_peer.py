"""fastembed beside ``document_encoder.py``, in a process of its own: it needs an older huggingface_hub than we do.

    uv run --no-project --with fastembed python benchmarks/fastembed_peer.py MODEL THREADS

MODEL is a folder with a graph of token outputs and its tokenizer; fastembed averages and scales. Each line of the
input is a JSON list of texts. Their vectors go to MODEL/vectors.npy, and a line of the output says that they are there.
"""

import json
import sys
from pathlib import Path

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType


def main() -> int:
    """Answer until the input ends."""
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    TextEmbedding.add_custom_model(
        "local", PoolingType.MEAN, True, ModelSource(url="file:"), dim=384, model_file="model.onnx"
    )
    model = TextEmbedding("local", specific_model_path=str(folder), threads=threads)
    for line in sys.stdin:
        np.save(folder / "vectors.npy", np.stack(list(model.embed(json.loads(line)))))
        print("done", flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
