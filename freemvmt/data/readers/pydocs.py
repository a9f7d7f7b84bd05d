"""The built-in data set: (summary, body) of the docstrings of the installed Python packages.

Source files are parsed, never imported. Helper processes parse them and answer in JSON over a pipe. Unlike a process
pool, they do not run the caller's ``__main__`` again, so a script without a ``__main__`` guard works too. The result is
cached in a file whose name depends on the versions of all packages.
"""

import ast
import gc
import gzip
import itertools
import json
import logging
import os
import platform
import re
import subprocess
import sys
import sysconfig
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np

from freemvmt.errors import UserError
from freemvmt.runtime.cores import cores
from freemvmt.runtime.home import cache_folder, mark_used, trim_cache, warn_uncached
from freemvmt.runtime.processes import command_of
from freemvmt.storage.digests import digest_of
from freemvmt.storage.files import atomic_file

log = logging.getLogger(__name__)

# fmt: off
PACKAGES: tuple[str, ...] = (  # import names of what the base install always has; "python": the standard library
    "python", "torch", "numpy", "scipy", "sympy", "mpmath", "networkx", "pandas", "pyarrow", "transformers", "datasets",
    "huggingface_hub", "tokenizers", "fsspec", "wandb", "rich", "tyro", "click", "requests", "urllib3", "httpx",
    "anyio", "pydantic", "jinja2", "pygments", "packaging", "filelock", "typer", "platformdirs", "safetensors")
_SKIPPED_FOLDERS = {  # the last two: torch's private compiler
    "__pycache__", "test", "tests", "testing", "_testing", "vendor", "_vendor", "vendored", "benchmarks", "examples",
    "encodings", "idlelib", "lib2to3", "turtledemo", "_inductor", "_dynamo"}
# fmt: on
_SKIPPED_PREFIXES = ("test_", "modular_")  # transformers generates its modeling_*.py from its modular_*.py
_MAX_WORDS = 200  # of a body
_EXTRACTION_VERSION = 1  # increase it when the same packages give other texts
_Rows = list[tuple[str, str, str, str]]
_ModuleContent = tuple[_Rows, _Rows]  # (module, name, summary, body) and (importer, imported module, name, alias)


@dataclass(frozen=True, slots=True)
class Docstring:
    """The two parts of a docstring, without markup and with single spaces."""

    name: str  # the shortest public name: networkx.Graph.add_edge
    package: str  # its import name: torch; "python" is the standard library
    summary: str  # the first paragraph
    body: str  # the rest, without doctests, truncated to ``_MAX_WORDS``


def read(packages: Sequence[str] = PACKAGES, workers: int | None = None, cache: Path | None = None) -> list[Docstring]:
    """The docstrings of ``packages`` that have a summary and a body, in the order of package, file and line.

    ``workers`` is the number of processes (1: this one; None: one for each core) and does not change the result.
    ``cache`` is the folder of the cache (None: ``pydocs`` in the cache folder). Missing packages are skipped. Raises
    ``UserError`` if there is no docstring.
    """
    folders_by_package = {package: folders for package in packages if (folders := _locate(package))}
    versions = [(package, _version(package, folders)) for package, folders in folders_by_package.items()]
    key = json.dumps([_EXTRACTION_VERSION, platform.python_version(), versions])
    cache_file = (cache or cache_folder("pydocs")) / f"{digest_of([key])}.jsonl.gz"
    docstrings = _load(cache_file)
    if not docstrings:
        log.info("reading the source of %d packages; the first time takes up to a minute", len(folders_by_package))
        _save(cache_file, docstrings := _collect(folders_by_package, workers or cores()))
    if not docstrings:
        raise UserError(f"no docstrings in {', '.join(packages)}; name packages that are installed with their source")
    return docstrings


def sample(limit: int | None, seed: int) -> list[Docstring]:
    """The docstrings of the installed packages, or a random choice of ``limit`` of them in the same order."""
    docstrings = read()
    if limit is None or limit >= len(docstrings):
        return docstrings
    return [docstrings[number] for number in np.sort(np.random.default_rng(seed).permutation(len(docstrings))[:limit])]


def _load(file: Path) -> list[Docstring] | None:
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            docstrings = [Docstring(*json.loads(line)) for line in lines]
        mark_used(file)
        return docstrings
    except (OSError, EOFError, zlib.error, ValueError, TypeError) as error:
        if getattr(error, "errno", None) is None:  # an OSError: the file does not exist or may not be read
            log.warning("%s is damaged and is made anew: %s", file, error)
        return None


def _save(file: Path, docstrings: list[Docstring]) -> None:
    try:
        with atomic_file(file) as temporary, gzip.open(temporary, "wt", encoding="utf-8", compresslevel=4) as lines:
            lines.writelines(json.dumps(astuple(docstring)) + "\n" for docstring in docstrings)
        trim_cache()
    except (OSError, UserError) as error:
        warn_uncached(error)


def _locate(package: str) -> list[Path]:
    """The folders of a package; none if it is not installed. Does not import the package."""
    if package == "python":
        return [Path(sysconfig.get_path("stdlib"))]
    spec = PathFinder.find_spec(package)
    return [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]


def _version(package: str, folders: list[Path]) -> str:
    try:
        return metadata.version(package) if package != "python" else ""
    except metadata.PackageNotFoundError:  # source on the path that is not installed: use its modification times
        return str([Path(path).stat().st_mtime_ns for _, path in _modules(package, folders)])


def _modules(package: str, folders: list[Path]) -> list[tuple[str, str]]:
    """(dotted name, path) of each module of a package, sorted by path."""
    modules = []
    for package_folder in folders:
        for folder, subfolders, files in os.walk(package_folder):
            subfolders[:] = [name for name in subfolders if name.isidentifier() and name not in _SKIPPED_FOLDERS]
            parts = [package] * (package != "python") + [*Path(folder).relative_to(package_folder).parts]
            for stem in (name[:-3] for name in files if name.endswith(".py")):
                if stem.isidentifier() and not stem.startswith(_SKIPPED_PREFIXES):
                    modules.append((f"{folder}/{stem}.py", ".".join(parts + [stem] * (stem != "__init__"))))
    return [(module, path) for path, module in sorted(modules) if Path(path).is_file()]


def _collect(folders_by_package: dict[str, list[Path]], workers: int) -> list[Docstring]:
    files = [(package, *file) for package, folders in folders_by_package.items() for file in _modules(package, folders)]
    results = _extract_all([(module, path) for _, module, path in files], workers)
    importers: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for importer, source, name, alias in itertools.chain(*(imports for _, imports in results)):
        importers.setdefault((source, name), []).append((importer, alias))
    # The first of equal docstrings: copies, aliases, inherited ones.
    distinct: dict[tuple[str, str], tuple[str, str, str]] = {}
    for (package, _, _), (docstrings, _) in zip(files, results, strict=True):
        for module, name, summary, body in docstrings:
            distinct.setdefault((summary, body), (package, module, name))
    return [
        Docstring(_shortest(module, name, importers), package, *pair)
        for pair, (package, module, name) in distinct.items()
    ]


def _shortest(module: str, name: str, importers: dict[tuple[str, str], list[tuple[str, str]]]) -> str:
    """The shortest public name of an object, by imports: ``numpy.sum`` for ``numpy._core.fromnumeric.sum``.

    ``importers`` maps (module, name) to the (module, name) pairs that import the object with ``from ... import``.
    """
    first, dot, rest = name.partition(".")
    candidates = [(module, first)]
    # The list grows in the loop, because others may import the object from an importer.
    for source, alias in candidates if name else ():
        pairs = importers.get((source, alias), []) + [(module, alias) for module, _ in importers.get((source, "*"), [])]
        candidates += [pair for pair in pairs if pair not in candidates]
    full_names = [f"{source}.{alias}".strip(".") for source, alias in candidates]
    return min(full_names, key=lambda name: ("._" in f".{name}", name.count("."), len(name), name)) + dot + rest


def _extract_all(files: list[tuple[str, str]], workers: int) -> list[_ModuleContent]:
    """The result of ``_extract`` for each (module, path), in the order of ``files``."""
    # Each batch has large and small files, so all take equally long. Four batches a worker balance busy cores.
    order = sorted(files, key=lambda file: -Path(file[1]).stat().st_size) if workers > 1 else []
    batches = [order[start :: workers * 4] for start in range(min(workers * 4, len(order)))]
    with ThreadPoolExecutor(workers) as threads:
        results = dict(itertools.chain(*threads.map(_extract_in_process, batches)))
    return [results.get(path) or _extract(module, path) for module, path in files]


def _extract_in_process(files: list[tuple[str, str]]) -> list[tuple[str, _ModuleContent]]:
    """Parse ``files`` in a helper process: (path, result) of each; an empty list if the process fails."""
    command = command_of("freemvmt.data.readers.pydocs._help")
    try:
        process = subprocess.run(command, input=json.dumps(files).encode(), capture_output=True, check=True)
        return list(json.loads(process.stdout))
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        log.info("a helper process failed, so its docstrings are read in this one: %s", error)
        return []


def _help() -> None:
    """The main function of a helper process: reads files from stdin, writes results to stdout."""
    gc.disable()  # syntax trees have no cycles, and the collector takes half of the time
    files = json.load(sys.stdin)
    sys.stdout.write(json.dumps([(path, _extract(module, path)) for module, path in files]))


def _extract(module: str, path: str) -> _ModuleContent:
    """(docstrings of a module, its from-imports if it is a package, private, or an ``api.py``)."""
    docstrings, imports = _Rows(), _Rows()
    keeps_imports = path.endswith(("__init__.py", "api.py")) or "._" in f".{module}"
    package = module.split(".") if path.endswith("__init__.py") else module.split(".")[:-1]
    try:
        content = Path(path).read_bytes()
        has_docstrings = b'"""' in content or b"'''" in content
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in strings
            tree = ast.parse(content if keeps_imports or has_docstrings else b"")
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return docstrings, imports
    for node, prefix in itertools.chain([(tree, "")], _statements(tree.body, "")):
        if isinstance(node, ast.ImportFrom) and keeps_imports:
            base_package = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*base_package, node.module or ""]).rstrip(".")
            imports += [(module, source, alias.name, alias.asname or alias.name) for alias in node.names]
        target_module, name, text = _docstring_of(node, module, prefix, ".".join(package))
        if text and "._" not in f".{name or module}" and (pair := split(text)):
            docstrings.append((target_module, name, *pair))
    return docstrings, imports


def _statements(body: list[ast.stmt], prefix: str) -> Iterator[tuple[ast.AST, str]]:
    """(statement, "Class.Inner.") of a module, public classes and the blocks of if, try and with, not of functions."""
    for node in body:
        name = getattr(node, "name", None) or ""
        if not name.startswith("_"):
            yield node, prefix
            if isinstance(node, ast.ClassDef | ast.If | ast.Try | ast.ExceptHandler | ast.With):
                for part in ("body", "handlers", "orelse", "finalbody"):
                    inner = f"{prefix}{name}." if isinstance(node, ast.ClassDef) else prefix
                    yield from _statements(getattr(node, part, []), inner)


def _docstring_of(node: ast.AST, module: str, prefix: str, package: str) -> tuple[str, str, str | None]:
    """(module, name, docstring) of the object that a statement describes; None as docstring if there is none."""
    match node:
        case ast.Module() | ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return module, prefix + getattr(node, "name", ""), ast.get_docstring(node, clean=False)
        case ast.Assign(targets=[ast.Attribute(value=ast.Name(id=owner), attr="__doc__")], value=text):
            return module, prefix + owner, _text_of(text)
        case ast.Assign(targets=[ast.Name(id="__doc__")], value=text) if prefix:
            return module, prefix[:-1], _text_of(text)
        # The rest is how torch, numpy and scipy document functions written in C.
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id="_add_docstr")) as call):
            return module, name, _text_of(call.args[-1])
        case ast.Expr(value=ast.Call(func=ast.Name(id="add_docstr" | "_add_docstr"), args=[target, text])):
            root, _, name = ast.unparse(target).partition(".")
            return root, name, _text_of(text)
        case ast.Expr(value=ast.Call(func=ast.Name(id="add_docstr_all"), args=[method, text])):
            return "torch", f"Tensor.{_text_of(method)}", _text_of(text)
        case ast.Expr(value=ast.Call(func=ast.Name(id="add_newdoc"), args=[*module_path, name, text])):
            inner = f".{_text_of(text.elts[0])}" if isinstance(text, ast.Tuple) else ""  # (method, docstring)
            text = text.elts[-1] if isinstance(text, ast.Tuple) else text
            return _text_of(module_path[0]) if module_path else package, _text_of(name) + inner, _text_of(text)
    return module, "", None


def _text_of(node: ast.expr) -> str:
    """The constant text in an expression, in order, without the parts that are filled in at run time."""
    constants = [part for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    text = "".join(str(part.value) for part in sorted(constants, key=lambda part: (part.lineno, part.col_offset)))
    if any(getattr(part, "attr", "") == "format" for part in ast.walk(node)):
        text = re.sub(r"\{\w*\}", "", text).replace("{{", "{").replace("}}", "}")
    return text


_HEADING = re.compile(r"[A-Z]\w+( \w+){0,2}:{0,2}$")
_NOISE = re.compile(r"```|[\\&]|[+|][-=+| ]+$|[=-]+ [=\- ]+$|:[\w-]+:$|:(label|toctree|nowrap|caption|align|math):")
_BREAK = re.compile(r"^(([=\-~^*+#\"'.])\2{2,}$|\.\. ?((note|warning|tip|important|seealso|math)::|\[.*?\])|\.\. .*)")
_FIELD = re.compile(r"^(?::(?:param|arg|keyword|var|ivar|raises|type|(?=r?types?:|returns?:))\s?([^:]*:)|[-*#]+ )")
_SIGNATURE = re.compile(r"!!! |[\w.]+ ?\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)(?: ?(?:--|->|→|=) ?[^.]*)?[:.]?$")
_BOILERPLATE = re.compile(r"\A(See help\(|TODO|(Args|Parameters)\b|\**\w+ (\(.*?\))?: )|[Cc]opyright|[Ll]icensed")
_MARKUP = (
    (r":[a-z][\w:+.-]*:`[~!.]?([^`\n]+?)(?:\s*<[^`\n]*>)?`", r"\1"),  # :class:`~torch.Tensor`, :ref:`text <target>`
    (r"``([^`\n]+)``", r"\1"),
    (r"(?<!\w)\[`~?([^`\n]*)`\](?:\([^)\n]*\))?", r"\1"),  # [`BertModel`](link)
    (r"(?<!\w)`~?([^`\s<][^`<\n]*?)(?:\s*<[^`\n]*>)?`(?:__?\b)?", r"\1"),
    (r"!?\[([^\]\n]+)\]\([^)\s]+\)", r"\1"),
    (r"(?<![\w*])(\*\*?)(\w[^*\n]*)\1(?![\w*])", r"\2"),  # *emphasis*, but not *args
    (r"<?https?://[^\s>)]+>?|\[[\w#*-]+\]_|%\(\w+\)s|</?(?:Tip|br|p|i|b|a|code|div|span|ul|li|img)\b[^>\n]*>", ""),
    (r"[^\S\n]+", " "),
    (r"\\(?=[*_`|])|(?<=:):(?=\s)| (?=[,.;]\s)|[\ud800-\udfff]", ""),  # the last: lone surrogates
)


def split(docstring: str) -> tuple[str, str] | None:
    """(summary, body) of a docstring; None if one of them is too short or is not prose."""
    summary, *paragraphs = _paragraphs(docstring) or [""]
    while paragraphs and (_SIGNATURE.match(summary) or _HEADING.match(summary)):
        summary, *paragraphs = paragraphs
    body: list[str] = []
    for text, following in itertools.pairwise([*paragraphs, "End"]):
        if not _HEADING.match(text):
            body += text.split()
        elif not _HEADING.match(following):  # a heading without text is dropped
            body += f"{text.rstrip(':')}:".split()
    del body[_MAX_WORDS:]
    word_count = sum(word.strip(",.;:()").isalpha() for word in body)
    is_prose = 3 <= len(summary.split()) <= 64 and word_count >= max(8, len(body) / 2)
    return (summary, " ".join(body)) if is_prose and not _BOILERPLATE.search(f"{summary} {paragraphs[0]}") else None


def _paragraphs(docstring: str) -> list[str]:
    """The paragraphs and headings, one line each, without markup, doctests and fenced code."""
    text, fenced, doctest = "", False, False
    for line in map(str.strip, docstring.splitlines()):
        doctest = bool(line) and (doctest or line.startswith(">>>"))
        fenced ^= line.startswith("```")
        if not (fenced or doctest or _NOISE.match(line)):
            line, is_break = _BREAK.subn("", line)
            text += "\n" if is_break or not line else ""
            text += f"\n{line}\n" if line.endswith(":") and _HEADING.match(line) else _FIELD.sub(r"\1", line) + " "
    for pattern, replacement in _MARKUP:
        text = re.sub(pattern, replacement, text)
    return [line.strip() for line in text.split("\n") if line.strip()]
