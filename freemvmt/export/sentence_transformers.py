"""Export average towers for sentence-transformers: StaticEmbedding and Normalize, or a Router over two such pairs.

`SentenceTransformer(folder)` reads the folder without this package; `encode_query` and `encode_document` give the same
vectors. The head is multiplied into the token table: the average of projected rows is the projection of their average.
"""

from pathlib import Path

from tokenizers import Tokenizer
from torch import Tensor

from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.optional import require
from freemvmt.storage.files import atomic_folder
from freemvmt.storage.outputs import check_empty
from freemvmt.storage.tensor_files import as_os_error


def export_static(model: TwoTowersModel, folder: Path) -> None:
    """Write ``folder``; ``UserError`` when it exists and is not empty, or the towers are no average towers."""
    kinds = set(model.config.kinds)
    if kinds != {"average"}:
        how = "is a transformer" if "transformer" in kinds else "reads tokens in their order"
        raise UserError(f"a tower that {how} is no StaticEmbedding; export it with --format onnx")
    check_empty(folder)
    library = require("sentence_transformers")
    parts = library.sentence_transformer.modules
    modules = {
        side: [parts.StaticEmbedding(Tokenizer.from_str(model.tokenizer.written), table), parts.Normalize()]
        for side, table in folded_tables(model).items()
    }
    both = modules["document"]
    if "query" in modules:
        both = [parts.Router.for_query_document(modules["query"], modules["document"])]
    made = library.SentenceTransformer(modules=both, device="cpu", similarity_fn_name="cosine")
    with atomic_folder(folder) as temporary:
        with as_os_error(folder):
            made.save_pretrained(str(temporary), create_model_card=False)
        (temporary / "README.md").write_text(_card(model), encoding="utf-8")


def folded_tables(model: TwoTowersModel) -> dict[str, Tensor]:
    """The token table of each side, multiplied with its head; only ``document`` if both towers are the same."""
    tensors = {name: tensor.detach().cpu() for name, tensor in model.tensors().items()}
    sides = ("query", "document") if len(model.config.sides) == 2 else ("document",)
    tables = {}
    for side in sides:
        table = tensors.get(f"{side}.table", tensors["document.table"])
        head = tensors.get(f"{side}.head")
        tables[side] = table if head is None else (table.double() @ head.double().T).float()
    return tables


def _card(model: TwoTowersModel) -> str:
    return (
        "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\ntags:\n- sentence-transformers\n"
        "- static-embedding\n- two-towers\n---\n\n# Two towers, as static embeddings\n\n"
        f"Token vectors that started from {model.config.base}, averaged; {model.dim} dimensions, cosine.\n\n"
        "```python\nfrom sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer(FOLDER)\n"
        'queries = model.encode_query(["how tall is the tower"])\n'
        'documents = model.encode_document(["It is 300 metres high."])\n```\n'
    )
