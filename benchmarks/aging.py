"""Which code a result speaks of, and whether it has changed since: what keeps old figures from passing for today's.

A result holds a digest of each file or folder of the package that could move its figures (``SPEAKS_OF``). The digest is
over the syntax tree without docstrings and comments, so that words that are put better make nothing old. Reading needs
no git: the digests of today's files are compared with those in the result.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent.parent / "freemvmt"

_TOKENS = ("data/tokenizer.py", "data/tokenizer_json.py", "data/ragged.py")
_VECTORS = (*_TOKENS, "towers", "model.py", "runtime/devices.py")
_SEARCHING = ("search/index", "search/retriever.py")
_BUNDLES = ("search/bundle", "search/index", "search/stores", "search/lazy_model.py")
_TRAINED = ("config.py", "data", "towers", "model.py", "runtime/devices.py", "losses", "trainer", "training.py")
_CHECKPOINTS = ("trainer/checkpoints.py", "trainer/state.py", "storage/files.py")
_QUALITY = (*_TRAINED, "evaluation", *_SEARCHING)
_SERVED = ("server", *_VECTORS, *_SEARCHING, *_BUNDLES)

# By result: the files and folders below the package whose change could move its figures.
SPEAKS_OF: dict[str, tuple[str, ...]] = {
    "adapt": _QUALITY,
    "aligned": _QUALITY,
    "cpu_cost": (*_VECTORS, *_SEARCHING, *_BUNDLES),
    "checkpoint_cost": (*_CHECKPOINTS, *_TRAINED),
    "document_encoder": (*_VECTORS, "export/onnx.py", "export/onnx_trace.py", "search/onnx_encoder.py"),
    "encode": _VECTORS,
    "encode_engines": ("export/vectors.py", "export/ray.py", "data/corpus.py", *_VECTORS),
    "engines": ("evaluation", *_VECTORS, *_SEARCHING, *_BUNDLES),
    "filters": ("search/stores",),
    "folder": ("cli", "data", *_VECTORS, *_SEARCHING, *_BUNDLES),
    "full_corpus": ("evaluation", "search/index", "search/retriever.py"),
    "fusions": _QUALITY,
    "fuzz": (*_CHECKPOINTS, "storage", "data", "search", "towers/model_folder.py"),
    "fuzz_coverage": ("data", "search"),
    "gpu": (*_VECTORS, "losses", "trainer", "training.py", "search/index/exact.py"),
    "hostile": ("server", "search"),
    "hybrid_search": (*_VECTORS, *_SEARCHING, *_BUNDLES),
    "hybrid_weight": _QUALITY,
    "hybrid_weight_light": _QUALITY,
    "install": ("runtime/optional.py", "integrations", "export"),
    "kills": (*_CHECKPOINTS, "storage/manifest.py", "tuning", "trainer/mining.py", "search"),
    "lite": (*_SERVED, "search/onnx_encoder.py", "export/onnx.py"),
    "msmarco_scale": (*_VECTORS, "search"),
    "power_cut": (*_CHECKPOINTS, "storage", "towers/model_folder.py", "tuning/study.py", "evaluation", *_BUNDLES),
    "quality_msmarco": _QUALITY,
    "quality_qa": _QUALITY,
    "quality_qa_infonce": _QUALITY,
    "quality_qa_msmarco": _QUALITY,
    "query_cost": (*_VECTORS, "search/lazy_model.py"),
    "readme": (".",),
    "rerank": ("search/reranker.py", "towers/cross_encoder.py", "towers/transformer.py"),
    "light_query": _QUALITY,
    "long_documents": (*_QUALITY, "search/stores"),
    "light_query_variants": _QUALITY,
    "recurrent": _QUALITY,
    "recurrent_speed": ("towers", "runtime/devices.py"),
    "recurrent_variants": _QUALITY,
    "scaling": (*_QUALITY, *_BUNDLES),
    "search": (*_TOKENS, *_SEARCHING, *_BUNDLES),
    "server_faults": ("server", "search"),
    "serving": _SERVED,
    "site_quality": ("export", "web", "search/index", *_VECTORS),
    "site": ("export", "web", "search/index", *_TOKENS),
    "site_first_hit": ("export/site", "web"),
    "smaller": (*_QUALITY, "search/bundle/recall.py", "search/bundle/build.py"),
    "startup": ("__init__.py", "cli", "runtime", "server", "storage", *_QUALITY, *_BUNDLES),
    "sweeps": ("tuning", *_QUALITY),
    "streaming_memory": (*_TRAINED, "data/streaming.py"),
    "training": _QUALITY,
}  # fmt: skip
_SHOWN = 3  # names of what has changed


def digests(name: str, package: Path = PACKAGE) -> dict[str, str]:
    """Of each part of ``package`` that the result ``name`` speaks of and that is there."""
    return {part: found for part in dict.fromkeys(SPEAKS_OF[name]) if (found := digest(package / part))}


def changed(name: str, result: dict[str, Any], package: Path = PACKAGE) -> list[str] | None:
    """The parts that are not as they were when ``result`` was measured; None if how they were is not known."""
    if "code" not in result:
        return None
    now, then = digests(name, package), result["code"]
    return [part for part in dict.fromkeys((*SPEAKS_OF[name], *then)) if now.get(part) != then.get(part)]


def note(results: Iterable[tuple[str, dict[str, Any]]], package: Path = PACKAGE) -> str:
    """A line that names those results that are older than their code; empty if none is."""
    old = [(name, result, parts) for name, result in results if (parts := changed(name, result, package)) != []]
    if not old:
        return ""
    said = [
        f"`{name}` ({result['date']}, {'code unknown' if parts is None else result['commit'][:7]})"
        for name, result, parts in old
    ]
    parts = old[0][2] or []
    since = f", since which {_listed(parts)} changed" if parts and len(old) == 1 else ""
    return f"Measured on older code: {', '.join(said)}{since}."


def _listed(parts: list[str]) -> str:
    names = [f"`{'freemvmt' if part == '.' else part}`" for part in parts]
    more = [] if len(names) <= _SHOWN else ["more"]
    *first, last = names[:_SHOWN] + more
    return f"{', '.join(first)} and {last}" if first else last


@cache
def digest(path: Path) -> str | None:
    """The digest of a file, or of all files of code below a folder; None if there is none."""
    files = sorted(one for one in path.rglob("*") if one.suffix in _ESSENCES) if path.is_dir() else [path]
    if not all(file.is_file() for file in files):
        return None
    whole = hashlib.sha256()
    for file in files:
        name = file.relative_to(path).as_posix()
        whole.update(f"{name}\0{_ESSENCES[file.suffix](file.read_text(encoding='utf-8'))}\0".encode())
    return whole.hexdigest()[:16]


def python_essence(source: str) -> str:
    """What Python makes of ``source``: its syntax tree without docstrings, in one form for all versions of Python."""
    return _essence(ast.parse(source))


def _essence(node: object) -> str:
    if isinstance(node, list):
        return f"[{','.join(_essence(one) for one in node if not _is_text_alone(one))}]"
    if isinstance(node, ast.Constant):
        return repr(node.value)
    if not isinstance(node, ast.AST):
        return repr(node)
    # A field that a later Python has is empty in what an earlier one can read.
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [], 0)]
    return f"{type(node).__name__}({','.join(f'{name}={_essence(value)}' for name, value in fields)})"


def _is_text_alone(node: object) -> bool:
    """Whether ``node`` is a docstring, of a module, class, function or field."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _script_essence(source: str) -> str:
    """Lines that say something: no comment alone, no space at the ends."""
    lines = (line.strip() for line in source.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith(("//", "/*", "* ", "*/", "<!--")))


_ESSENCES = {".py": python_essence, **dict.fromkeys((".js", ".html", ".css"), _script_essence)}
