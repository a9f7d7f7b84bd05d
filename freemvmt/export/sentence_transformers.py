"""An average tower as a folder of sentence-transformers: StaticEmbedding and Normalize, or a Router over two of them.

`SentenceTransformer(folder)` reads it with no code of ours, and its `encode_query` and `encode_document` give our
vectors. A head is folded into the table: the average of projected rows is the projection of their average.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.storage.files import whole_folder
from freemvmt.storage.outputs import check_free
from freemvmt.storage.tensor_files import save_tensors

_LIBRARY = "sentence_transformers.models"  # where its modules have been found in every version since 3.2
_NORMALIZE = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}


def export_static(model: TwoTowersModel, folder: Path) -> None:
    """Write ``folder``, whole or not at all; ``UserError`` where it is there already, or the towers do not average."""
    if model.config.tower != "average":
        how = "reads tokens in their order" if model.config.tower == "recurrent" else "is a transformer"
        raise UserError(f"a tower that {how} is no StaticEmbedding; export it with --format onnx")
    check_free(folder)
    tables = folded_tables(model)
    with whole_folder(folder) as part:
        if len(tables) == 1:
            _write_embedding(part, tables["document"], model)
            modules = [_module(0, "", "StaticEmbedding"), _module(1, "1_Normalize", "Normalize")]
            _write(part / "1_Normalize" / "config.json", _NORMALIZE)
        else:
            names = {side: [f"{side}_0_StaticEmbedding", f"{side}_1_Normalize"] for side in ("query", "document")}
            for side, (embedding, normalize) in names.items():
                _write_embedding(part / embedding, tables[side], model)
                _write(part / normalize / "config.json", _NORMALIZE)
            types = {name: f"{_LIBRARY}.{name.rpartition('_')[2]}" for pair in names.values() for name in pair}
            parameters = {"default_route": "document", "allow_empty_key": True, "route_mappings": {}}
            _write(part / "router_config.json", {"types": types, "structure": names, "parameters": parameters})
            modules = [_module(0, "", "Router")]
        _write(part / "modules.json", modules)
        settings = {
            "similarity_fn_name": "cosine",
            "prompts": {"query": "", "document": ""},
            "default_prompt_name": None,
        }
        _write(part / "config_sentence_transformers.json", settings)
        (part / "README.md").write_text(_card(model), encoding="utf-8")


def folded_tables(model: TwoTowersModel) -> dict[str, Tensor]:
    """The table of each side, heads folded in; one where both sides are the same."""
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


def _write(path: Path, content: Any) -> None:
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
