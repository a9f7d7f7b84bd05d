"""Export average and transformer towers for sentence-transformers: one pipeline of its modules, or a Router over two.

`SentenceTransformer(folder)` reads the folder without this package; `encode_query` and `encode_document` give the same
vectors. An average is a StaticEmbedding: its head is multiplied into the token table, because the average of projected
rows is the projection of their average. A transformer is a Transformer with its Pooling, its prompts, and a Dense head.
For a text without tokens it gives the vector of the special tokens alone, where ours is zero.
"""

import copy
import itertools
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor, nn

from freemvmt.config import TowerName
from freemvmt.data.tokenizer import Tokenizer as OwnTokenizer
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.optional import require
from freemvmt.storage.files import atomic_folder
from freemvmt.storage.outputs import check_empty
from freemvmt.storage.tensor_files import as_os_error
from freemvmt.towers.factory import Tower
from freemvmt.towers.transformer import TransformerTower, silenced, special_tokens


def export_sentence_transformers(model: TwoTowersModel, folder: Path) -> None:
    """Write ``folder``; ``UserError`` when it exists and is not empty, or a tower is recurrent."""
    if "recurrent" in model.config.kinds:
        raise UserError("sentence-transformers has no tower that reads tokens in order; export it with --format onnx")
    check_empty(folder)
    library, transformers = require("sentence_transformers"), require("transformers")
    parts = library.sentence_transformer.modules
    heads = {"query": model.query_head, "document": model.document_head}
    with silenced(transformers.logging):
        modules = {side: _modules(parts, tower, heads[side], model.tokenizer) for side, tower in model.towers().items()}
        both = modules["document"]
        if "query" in modules:
            both = [parts.Router.for_query_document(modules["query"], modules["document"])]
        made = library.SentenceTransformer(
            modules=both, device="cpu", similarity_fn_name="cosine", prompts=_prompts(model)
        )
        with atomic_folder(folder) as temporary:
            with as_os_error(folder):
                made.save_pretrained(str(temporary), create_model_card=False)
            (temporary / "README.md").write_text(_card(model), encoding="utf-8")


def _prompts(model: TwoTowersModel) -> dict[str, str]:
    """The prompt of each side that a transformer encodes."""
    sides: tuple[TowerName, ...] = ("query", "document")
    return {side: model.sentence.prompt(side) if model.config.kind_of(side) == "transformer" else "" for side in sides}


def _modules(parts: Any, tower: Tower, head: nn.Module, tokenizer: OwnTokenizer) -> list[Any]:
    """A tower and its head as modules of the library, whose classes are in ``parts``."""
    if not isinstance(tower, TransformerTower):
        static = parts.StaticEmbedding(Tokenizer.from_str(tokenizer.written), folded_table(tower, head))
        return [static, parts.Normalize()]
    with tempfile.TemporaryDirectory() as folder:
        _write_encoder(tower, tokenizer, Path(folder))
        modules = [parts.Transformer(folder), parts.Pooling(tower.width, pooling_mode=tower.sentence.pooling)]
    for name, weight in modules[0].named_parameters():
        if ".pooler." in name:  # not used; it would be random
            nn.init.zeros_(weight)
    if isinstance(head, nn.Linear):
        weight = head.weight.detach().cpu()
        modules.append(parts.Dense(head.in_features, head.out_features, False, nn.Identity(), init_weight=weight))
    return [*modules, parts.Normalize()]


def _write_encoder(tower: TransformerTower, tokenizer: OwnTokenizer, folder: Path) -> None:
    """Write the encoder of ``tower`` and its tokenizer into ``folder`` as `transformers` reads them."""
    encoder: Any = copy.deepcopy(tower.encoder)
    encoder.set_input_embeddings(nn.Embedding(len(tower.table), tower.table.shape[1], _weight=tower.table.detach()))
    encoder.save_pretrained(folder)
    reader = require("transformers").PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.definition),
        model_max_length=tower.max_length(tokenizer.max_length + tower.prompt_tokens),
        model_input_names=["input_ids", "attention_mask"],
    )
    paddings = [getattr(encoder.config, "pad_token_id", None), *itertools.chain(*special_tokens(tokenizer.definition))]
    reader.pad_token = reader.convert_ids_to_tokens(next((id for id in paddings if id is not None), 0))
    reader.save_pretrained(folder)


def folded_table(tower: Tower, head: nn.Module) -> Tensor:
    """The token table of ``tower``, multiplied with its head."""
    table = tower.table.detach().cpu()
    return (table.double() @ head.weight.detach().cpu().double().T).float() if isinstance(head, nn.Linear) else table


def _card(model: TwoTowersModel) -> str:
    vectors = {"average": "token vectors that started from {}, averaged", "transformer": "the mean of {}'s outputs"}
    sides = {side: vectors[model.config.kind_of(side)].format(model.config.base) for side in model.towers()}
    towers = "; ".join(f"{side}: {vector}" for side, vector in sides.items())
    tag = "static-embedding" if "average" in model.config.kinds else "transformer"
    return (
        "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\ntags:\n- sentence-transformers\n"
        f"- {tag}\n- two-towers\n---\n\n# Two towers, for sentence-transformers\n\n"
        f"{towers}; {model.dim} dimensions, cosine.\n\n"
        "```python\nfrom sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer(FOLDER)\n"
        'queries = model.encode_query(["how tall is the tower"])\n'
        'documents = model.encode_document(["It is 300 metres high."])\n```\n'
    )
