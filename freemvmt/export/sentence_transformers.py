"""Export average towers for sentence-transformers: StaticEmbedding and Normalize, or a Router over two such pairs.

`SentenceTransformer(folder)` reads the folder without this package; `encode_query` and `encode_document` give the same
vectors. The head is multiplied into the token table: the average of projected rows is the projection of their average.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.storage.files import atomic_folder
from freemvmt.storage.outputs import check_empty
from freemvmt.storage.tensor_files import save_tensors

_LIBRARY = "sentence_transformers.models"  # path of its modules in every version since 3.2
_NORMALIZE = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}


def export_static(model: TwoTowersModel, folder: Path) -> None:
    """Write ``folder``; ``UserError`` when it exists and is not empty, or the towers are no average towers."""
    if model.config.tower != "average":
        how = "reads tokens in their order" if model.config.tower == "recurrent" else "is a transformer"
        raise UserError(f"a tower that {how} is no StaticEmbedding; export it with --format onnx")
    check_empty(folder)
    tables = folded_tables(model)
    with atomic_folder(folder) as temporary:
        if len(tables) == 1:
            _write_embedding(temporary, tables["document"], model)
            modules = [_module(0, "", "StaticEmbedding"), _module(1, "1_Normalize", "Normalize")]
            _write_json(temporary / "1_Normalize" / "config.json", _NORMALIZE)
        else:
            names = {side: [f"{side}_0_StaticEmbedding", f"{side}_1_Normalize"] for side in ("query", "document")}
            for side, (embedding, normalize) in names.items():
                _write_embedding(temporary / embedding, tables[side], model)
                _write_json(temporary / normalize / "config.json", _NORMALIZE)
            types = {name: f"{_LIBRARY}.{name.rpartition('_')[2]}" for pair in names.values() for name in pair}
            parameters = {"default_route": "document", "allow_empty_key": True, "route_mappings": {}}
            _write_json(
                temporary / "router_config.json", {"types": types, "structure": names, "parameters": parameters}
            )
            modules = [_module(0, "", "Router")]
        _write_json(temporary / "modules.json", modules)
        settings = {
            "similarity_fn_name": "cosine",
            "prompts": {"query": "", "document": ""},
            "default_prompt_name": None,
        }
        _write_json(temporary / "config_sentence_transformers.json", settings)
        (temporary / "README.md").write_text(_card(model), encoding="utf-8")


def folded_tables(model: TwoTowersModel) -> dict[str, Tensor]:
    """The token table of each side, multiplied with its head; only ``document`` if both towers are the same."""
    tensors = {name: tensor.detach().cpu() for name, tensor in model.tensors().items()}
    sides = ("query", "document") if model.config.separate_towers else ("document",)
    tables = {}
    for side in sides:
        table = tensors.get(f"{side}.table", tensors["document.table"])
        head = tensors.get(f"{side}.head")
        tables[side] = table if head is None else (table.double() @ head.double().T).float()
    return tables


def _write_embedding(folder: Path, table: Tensor, model: TwoTowersModel) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors({"embedding.weight": table.contiguous()}, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(model.tokenizer.written, encoding="utf-8")


def _module(number: int, path: str, kind: str) -> dict[str, Any]:
    return {"idx": number, "name": str(number), "path": path, "type": f"{_LIBRARY}.{kind}"}


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _card(model: TwoTowersModel) -> str:
    return (
        "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\ntags:\n- sentence-transformers\n"
        "- static-embedding\n- two-towers\n---\n\n# Two towers, as static embeddings\n\n"
        f"Token vectors that started from {model.config.base}, averaged; {model.dim} dimensions, cosine.\n\n"
        "```python\nfrom sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer(FOLDER)\n"
        'queries = model.encode_query(["how tall is the tower"])\n'
        'documents = model.encode_document(["It is 300 metres high."])\n```\n'
    )
