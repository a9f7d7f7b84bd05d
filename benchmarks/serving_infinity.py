"""infinity-emb with a StaticEmbedding model, run by the Python of its own environment.

    VENV/bin/python benchmarks/serving_infinity.py v2 --model-id FOLDER --port N --device cpu --no-bettertransformer

infinity-emb 0.0.78 takes every model for a transformer: it asks for `auto_model` and counts tokens the transformers
way. Both are supplied here; all else is infinity-emb as it is.
"""

import sys
from types import SimpleNamespace
from typing import Any

from infinity_emb.cli import cli
from infinity_emb.transformer.embedder.sentence_transformer import SentenceTransformerPatched
from sentence_transformers.models import StaticEmbedding


def tokenize_lengths(self: Any, sentences: list[str]) -> list[int]:
    """Tokens of each text."""
    encodings = self._infinity_tokenizer.encode_batch(sentences, add_special_tokens=False)
    return [len(encoding.ids) for encoding in encodings]


StaticEmbedding.auto_model = SimpleNamespace(config=SimpleNamespace(architectures=["StaticEmbedding"]))
SentenceTransformerPatched.tokenize_lengths = tokenize_lengths

if __name__ == "__main__":
    sys.exit(cli())
