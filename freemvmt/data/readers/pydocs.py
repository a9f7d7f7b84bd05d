"""The embedded data set: (summary, body) of the docstrings of the Python packages that are installed.

Source files are parsed, never imported, and dealt out to helper processes that answer in JSON over a pipe: unlike a
process pool these do not run the caller's ``__main__`` again, so a script without a guard works too. What was found is
kept on disk in a file named by the versions of all that was read.
"""

import ast
import gc
import gzip
import hashlib
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

import freemvmt
from freemvmt.errors import UserError
from freemvmt.runtime.cores import cores
from freemvmt.runtime.home import cache_folder, note_uncached
from freemvmt.storage.files import whole_file

log = logging.getLogger(__name__)

# fmt: off
PACKAGES: tuple[str, ...] = (  # import names of what the base install always brings; "python": the standard library
    "python", "torch", "numpy", "scipy", "sympy", "mpmath", "networkx", "pandas", "pyarrow", "transformers", "datasets",
    "huggingface_hub", "tokenizers", "fsspec", "wandb", "rich", "tyro", "click", "requests", "urllib3", "httpx",
    "anyio", "pydantic", "jinja2", "pygments", "packaging", "filelock", "typer", "platformdirs", "safetensors")
_SKIPPED = {  # the last two: torch's private compiler
    "__pycache__", "test", "tests", "testing", "_testing", "vendor", "_vendor", "vendored", "benchmarks", "examples",
    "encodings", "idlelib", "lib2to3", "turtledemo", "_inductor", "_dynamo"}
# fmt: on
_UNREAD = ("test_", "modular_")  # transformers makes its modeling_*.py from its modular_*.py
_EXTRACTION = 1  # raise it when other text would come out of the same packages
_Rows = list[tuple[str, str, str, str]]
_Answer = tuple[_Rows, _Rows]  # (module, name, summary, body) and (here, there, name there, name here)


@dataclass(frozen=True, slots=True)
class Docstring:
    """A docstring in two parts, both without markup and with white space folded to single spaces."""

    name: str  # the shortest public one that was found: networkx.Graph.add_edge
    package: str  # as it was asked for: torch; "python" is the standard library
    summary: str  # the first paragraph
    body: str  # the rest, without doctests, cut after a number of words


def read(
    packages: Sequence[str] = PACKAGES, workers: int | None = None, cache: Path | None = None, words: int = 200
) -> list[Docstring]:
    """The docstrings of ``packages`` that have a summary and a body, in the order of package, file and place in it.

    ``workers`` is the number of processes (1: this one; None: one a core) and changes nothing in the result. ``cache``
    is the folder to keep it in (None: ``pydocs`` in the cache folder), ``words`` the longest body. A package that is
    missing is passed over; when nothing at all is found, that is a ``UserError``.
    """
    places = {package: folders for package in packages if (folders := _locate(package))}
    versions = [(package, _version(package, folders)) for package, folders in places.items()]
    key = json.dumps([_EXTRACTION, platform.python_version(), words, versions])
    file = (cache or cache_folder("pydocs")) / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.jsonl.gz"
    docstrings = _load(file)
    if not docstrings:
        log.info("reading the source of %d packages; the first time takes up to a minute", len(places))
        _save(file, docstrings := _collect(places, workers or cores(), words))
    if not docstrings:
        raise UserError(f"no docstrings in {', '.join(packages)}; name packages that are installed with their source")
    return docstrings


def _load(file: Path) -> list[Docstring] | None:
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            return [Docstring(*json.loads(line)) for line in lines]
    except (OSError, EOFError, zlib.error, ValueError, TypeError) as error:
        if getattr(error, "errno", None) is None:  # else it is not there, or may not be read
            log.warning("%s is damaged and is made anew: %s", file, error)
        return None


def _save(file: Path, docstrings: list[Docstring]) -> None:
    try:
        with whole_file(file) as part, gzip.open(part, "wt", encoding="utf-8", compresslevel=4) as lines:
            lines.writelines(json.dumps(astuple(docstring)) + "\n" for docstring in docstrings)
    except (OSError, UserError) as error:
        note_uncached(error)


def _locate(package: str) -> list[Path]:
    """The folders of a package; none if it is not installed. Nothing is imported."""
    if package == "python":
        return [Path(sysconfig.get_path("stdlib"))]
    spec = PathFinder.find_spec(package)
    return [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]


def _version(package: str, folders: list[Path]) -> str:
    try:
        return metadata.version(package) if package != "python" else ""
    except metadata.PackageNotFoundError:  # source on the path that nobody installed: its times stand in
        return str([Path(path).stat().st_mtime_ns for _, path in _modules(package, folders)])


def _modules(package: str, folders: list[Path]) -> list[tuple[str, str]]:
    """(dotted name, path) of each module of a package, in the order of the paths."""
    found = []
    for root in folders:
        for folder, subfolders, files in os.walk(root):
            subfolders[:] = [name for name in subfolders if name.isidentifier() and name not in _SKIPPED]
            parts = [package] * (package != "python") + [*Path(folder).relative_to(root).parts]
            for stem in (name[:-3] for name in files if name.endswith(".py")):
                if stem.isidentifier() and not stem.startswith(_UNREAD):
                    found.append((f"{folder}/{stem}.py", ".".join(parts + [stem] * (stem != "__init__"))))
    return [(module, path) for path, module in sorted(found) if Path(path).is_file()]


def _collect(places: dict[str, list[Path]], workers: int, words: int) -> list[Docstring]:
    files = [(package, *file) for package, folders in places.items() for file in _modules(package, folders)]
    answers = _ask_all([(module, path) for _, module, path in files], workers, words)
    offers: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for here, there, name, alias in itertools.chain(*(imports for _, imports in answers)):
        offers.setdefault((there, name), []).append((here, alias))
    kept: dict[tuple[str, str], tuple[str, str, str]] = {}  # the first of equal ones: copies, aliases, inherited
    for (package, _, _), (docs, _) in zip(files, answers, strict=True):
        for module, name, summary, body in docs:
            kept.setdefault((summary, body), (package, module, name))
    return [Docstring(_shortest(module, name, offers), at, *pair) for pair, (at, module, name) in kept.items()]


def _shortest(module: str, name: str, offers: dict[tuple[str, str], list[tuple[str, str]]]) -> str:
    """``numpy.sum`` for the ``sum`` of ``numpy._core.fromnumeric``: what ``from there import name`` makes of it."""
    first, dot, rest = name.partition(".")
    known = [(module, first)]
    for there, shown in known if name else ():  # it grows meanwhile: what is offered here may be offered on elsewhere
        found = offers.get((there, shown), []) + [(here, shown) for here, _ in offers.get((there, "*"), [])]
        known += [offer for offer in found if offer not in known]
    joined = [f"{there}.{shown}".strip(".") for there, shown in known]
    return min(joined, key=lambda name: ("._" in f".{name}", name.count("."), len(name), name)) + dot + rest


def _ask_all(files: list[tuple[str, str]], workers: int, words: int) -> list[_Answer]:
    """What ``_extract`` says of each (module, path), in the order of the files."""
    # Each share has large and small files alike: all take equally long. Four a worker even out cores that are busy.
    order = sorted(files, key=lambda file: -Path(file[1]).stat().st_size) if workers > 1 else []
    shares = [order[start :: workers * 4] for start in range(min(workers * 4, len(order)))]
    with ThreadPoolExecutor(workers) as threads:
        replies = dict(itertools.chain(*threads.map(_ask, shares, itertools.repeat(words))))
    return [replies.get(path) or _extract(module, path, words) for module, path in files]


def _ask(files: list[tuple[str, str]], words: int) -> list[tuple[str, _Answer]]:
    """Let a helper process read ``files``: (path, answer) of each, or of none when it fails."""
    code = "import sys; sys.path.append(sys.argv[1]); from freemvmt.data.readers import pydocs; pydocs._help()"
    place = str(Path(freemvmt.__file__).parents[1])
    command = [sys.executable or "python", "-P", "-c", code, place]  # -P: no json.py of here
    try:
        done = subprocess.run(command, input=json.dumps([files, words]).encode(), capture_output=True, check=True)
        return list(json.loads(done.stdout))
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        log.info("a helper process failed, so its docstrings are read in this one: %s", error)
        return []


def _help() -> None:
    """What a helper process does: files in on stdin, answers out on stdout."""
    gc.disable()  # syntax trees have no cycles, and looking for some takes half of the time
    files, words = json.load(sys.stdin)
    sys.stdout.write(json.dumps([(path, _extract(module, path, words)) for module, path in files]))


def _extract(module: str, path: str, words: int) -> _Answer:
    """The docstrings of a file, and what it offers of other modules if it is a package or private to one."""
    docs, imports = _Rows(), _Rows()
    offers = path.endswith(("__init__.py", "api.py")) or "._" in f".{module}"
    package = module.split(".") if path.endswith("__init__.py") else module.split(".")[:-1]
    try:
        source = Path(path).read_bytes()
        quoted = b'"""' in source or b"'''" in source
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in other people's strings
            tree = ast.parse(source if offers or quoted else b"")
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return docs, imports
    for node, prefix in itertools.chain([(tree, "")], _statements(tree.body, "")):
        if isinstance(node, ast.ImportFrom) and offers:
            base = package[: len(package) + 1 - node.level] if node.level else []
            there = ".".join([*base, node.module or ""]).rstrip(".")
            imports += [(module, there, alias.name, alias.asname or alias.name) for alias in node.names]
        place, name, text = _described(node, module, prefix, ".".join(package))
        if text and "._" not in f".{name or module}" and (pair := split(text, words)):
            docs.append((place, name, *pair))
    return docs, imports


def _statements(body: list[ast.stmt], prefix: str) -> Iterator[tuple[ast.AST, str]]:
    """(statement, "Class.Inner.") of a module, through public classes, conditions and tries, not into functions."""
    for node in body:
        name = getattr(node, "name", None) or ""
        if not name.startswith("_"):
            yield node, prefix
            if isinstance(node, ast.ClassDef | ast.If | ast.Try | ast.ExceptHandler | ast.With):
                for part in ("body", "handlers", "orelse", "finalbody"):
                    inner = f"{prefix}{name}." if isinstance(node, ast.ClassDef) else prefix
                    yield from _statements(getattr(node, part, []), inner)


def _described(node: ast.AST, module: str, prefix: str, package: str) -> tuple[str, str, str | None]:
    """(module, name, docstring) of what a statement describes, if it does."""
    match node:
        case ast.Module() | ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return module, prefix + getattr(node, "name", ""), ast.get_docstring(node, clean=False)
        case ast.Assign(targets=[ast.Attribute(value=ast.Name(id=owner), attr="__doc__")], value=text):
            return module, prefix + owner, _constant(text)
        case ast.Assign(targets=[ast.Name(id="__doc__")], value=text) if prefix:
            return module, prefix[:-1], _constant(text)
        # The rest is how torch, numpy and scipy describe what is written in C.
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id="_add_docstr")) as call):
            return module, name, _constant(call.args[-1])
        case ast.Expr(value=ast.Call(func=ast.Name(id="add_docstr" | "_add_docstr"), args=[target, text])):
            root, _, name = ast.unparse(target).partition(".")
            return root, name, _constant(text)
        case ast.Expr(value=ast.Call(func=ast.Name(id="add_docstr_all"), args=[method, text])):
            return "torch", f"Tensor.{_constant(method)}", _constant(text)
        case ast.Expr(value=ast.Call(func=ast.Name(id="add_newdoc"), args=[*place, name, text])):
            inner = f".{_constant(text.elts[0])}" if isinstance(text, ast.Tuple) else ""  # (method, docstring)
            text = text.elts[-1] if isinstance(text, ast.Tuple) else text
            return _constant(place[0]) if place else package, _constant(name) + inner, _constant(text)
    return module, "", None


def _constant(node: ast.expr) -> str:
    """The constant text in an expression, in its order; what is filled in when the program runs is left out."""
    parts = [part for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    text = "".join(str(part.value) for part in sorted(parts, key=lambda part: (part.lineno, part.col_offset)))
    if any(getattr(part, "attr", "") == "format" for part in ast.walk(node)):
        text = re.sub(r"\{\w*\}", "", text).replace("{{", "{").replace("}}", "}")
    return text


_HEADING = re.compile(r"[A-Z]\w+( \w+){0,2}:{0,2}$")
_NOISE = re.compile(r"```|[\\&]|[+|][-=+| ]+$|[=-]+ [=\- ]+$|:[\w-]+:$|:(label|toctree|nowrap|caption|align|math):")
_BREAK = re.compile(r"^(([=\-~^*+#\"'.])\2{2,}$|\.\. ?((note|warning|tip|important|seealso|math)::|\[.*?\])|\.\. .*)")
_FIELD = re.compile(r"^(?::(?:param|arg|keyword|var|ivar|raises|type|(?=r?types?:|returns?:))\s?([^:]*:)|[-*#]+ )")
_SIGNATURE = re.compile(r"!!! |[\w.]+ ?\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)(?: ?(?:--|->|→|=) ?[^.]*)?[:.]?$")
_DULL = re.compile(r"\A(See help\(|TODO|(Args|Parameters)\b|\**\w+ (\(.*?\))?: )|[Cc]opyright|[Ll]icensed")
_MARKUP = (
    (r":[a-z][\w:+.-]*:`[~!.]?([^`\n]+?)(?:\s*<[^`\n]*>)?`", r"\1"),  # :class:`~torch.Tensor`, :ref:`text <target>`
    (r"``([^`\n]+)``", r"\1"),
    (r"(?<!\w)\[`~?([^`\n]*)`\](?:\([^)\n]*\))?", r"\1"),  # [`BertModel`](link)
    (r"(?<!\w)`~?([^`\s<][^`<\n]*?)(?:\s*<[^`\n]*>)?`(?:__?\b)?", r"\1"),
    (r"!?\[([^\]\n]+)\]\([^)\s]+\)", r"\1"),
    (r"(?<![\w*])(\*\*?)(\w[^*\n]*)\1(?![\w*])", r"\2"),  # *emphasis*, but not *args
    (r"<?https?://[^\s>)]+>?|\[[\w#*-]+\]_|%\(\w+\)s|</?(?:Tip|br|p|i|b|a|code|div|span|ul|li|img)\b[^>\n]*>", ""),
    (r"[^\S\n]+", " "),
    (r"\\(?=[*_`|])|(?<=:):(?=\s)| (?=[,.;]\s)|[\ud800-\udfff]", ""),  # the last: half a surrogate pair is no text
)


def split(docstring: str, words: int = 200) -> tuple[str, str] | None:
    """(summary, body) of a docstring; ``None`` when there is too little in one of them to learn from."""
    summary, *paragraphs = _paragraphs(docstring) or [""]
    while paragraphs and (_SIGNATURE.match(summary) or _HEADING.match(summary)):
        summary, *paragraphs = paragraphs
    body: list[str] = []
    for text, after in itertools.pairwise([*paragraphs, "End"]):
        if not _HEADING.match(text):
            body += text.split()
        elif not _HEADING.match(after):  # what stood under the others is not kept
            body += f"{text.rstrip(':')}:".split()
    del body[words:]
    plain = sum(word.strip(",.;:()").isalpha() for word in body)
    told = 3 <= len(summary.split()) <= 64 and plain >= max(8, len(body) / 2)
    return (summary, " ".join(body)) if told and not _DULL.search(f"{summary} {paragraphs[0]}") else None


def _paragraphs(docstring: str) -> list[str]:
    """Paragraphs and headings as a line each, without markup, doctests and fenced code."""
    text, fenced, doctest = "", False, False
    for line in map(str.strip, docstring.splitlines()):
        doctest = bool(line) and (doctest or line.startswith(">>>"))
        fenced ^= line.startswith("```")
        if not (fenced or doctest or _NOISE.match(line)):
            line, ends = _BREAK.subn("", line)
            text += "\n" if ends or not line else ""
            text += f"\n{line}\n" if line.endswith(":") and _HEADING.match(line) else _FIELD.sub(r"\1", line) + " "
    for pattern, by in _MARKUP:
        text = re.sub(pattern, by, text)
    return [line.strip() for line in text.split("\n") if line.strip()]
