"""The rules of the house that a tool can hold: floors, cycles, names, sizes. Each test lists all offenders."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "freemvmt"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = [*sorted((ROOT / "benchmarks").glob("*.py")), *sorted((ROOT / "docs" / "build").glob("*.py"))]

# From the ground up: a module imports from its own floor or from below. Folders on one floor do not import each other.
FLOORS: list[set[str]] = [
    {"errors"},
    {"config", "runtime"},
    {"storage"},
    {"data"},
    {"towers", "losses"},
    {"model"},
    {"search"},
    {"evaluation", "export", "server", "integrations"},
    {"trainer"},
    {"training"},
    {"tuning"},
    {"cli"},
    {"__init__", "__main__", "main", "sweep_config"},
]
TOP = {"__init__", "__main__", "main", "sweep_config", "training", "model", "config", "errors"}
LONGEST_FUNCTION = 60  # lines
# Longer ones, and why.
LONG = {
    "server/api/routes.py: add_routes",  # FastAPI's way: each route is a function of two lines inside it
}


def name_of(path: Path) -> str:
    """`search.index.exact`, for a file of the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports_of(path: Path) -> set[str]:
    """The modules of the package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "freemvmt":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_module = (ROOT / f"{whole.replace('.', '/')}.py").exists()
                found.add(whole if is_module else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("freemvmt.") for name in found if name.startswith("freemvmt.")}


def floor(module: str) -> int:
    top = module.split(".")[0]
    return next(level for level, names in enumerate(FLOORS) if top in names)


def cycles_of(imports: dict[str, set[str]]) -> list[list[str]]:
    """Rings of modules that import each other, as lists of their names."""
    rings, done = [], set()

    def follow(name: str, path: list[str]) -> None:
        if name in path:
            rings.append([*path[path.index(name) :], name])
        elif name not in done:
            for other in sorted(imports.get(name, ())):
                follow(other, [*path, name])
            done.add(name)

    for name in imports:
        follow(name, [])
    return rings


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def test_imports_go_down_the_floors_only() -> None:
    wrong = []
    for path in MODULES:
        own = name_of(path)
        for other in imports_of(path):
            beside = floor(other) == floor(own) < len(FLOORS) - 1 and other.split(".")[0] != own.split(".")[0]
            if floor(other) > floor(own) or beside:
                wrong.append(f"{own} imports {other}")
    assert wrong == []


def test_no_module_imports_itself_by_a_detour() -> None:
    assert cycles_of({name_of(path): imports_of(path) for path in MODULES}) == []


def test_no_benchmark_imports_itself_by_a_detour() -> None:
    imports = {}
    for path in SCRIPTS:
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        nodes = [node for node in tree if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        imports[path.stem] = names | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert cycles_of(imports) == []


def test_the_top_folder_holds_eight_modules() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == TOP


def test_no_module_hides_an_importable_one() -> None:
    """`python main.py` puts freemvmt/ first on the path: its names must not be those of other modules."""
    own = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/*.py")}
    others = set(sys.stdlib_module_names) | set(packages_distributions())
    assert own & others - {"__init__", "__pycache__"} == set()


def test_no_folder_has_the_name_of_an_output() -> None:
    """`cd freemvmt && python main.py` writes them there."""
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders & {"models", "bundles", "sweeps", "exports", "wandb"} == set()


def test_every_module_and_folder_begins_with_its_idea() -> None:
    silent = [name_of(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    silent += [str(path.parent) for path in MODULES if not (path.parent / "__init__.py").exists()]
    assert silent == []


def test_a_folder_imports_nothing_by_itself() -> None:
    """What is imported with a folder is imported with each of its modules, in an environment without PyTorch too."""
    heavy = []
    for path in PACKAGE.glob("*/**/__init__.py"):
        names = {type(node).__name__ for node in ast.parse(path.read_text(encoding="utf-8")).body[1:]}
        if names and path.parent.name != "cli":
            heavy.append(name_of(path))
    assert heavy == []


def test_what_begins_with_an_underscore_stays_in_its_module() -> None:
    taken = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("freemvmt"):
                taken += [f"{name_of(path)}: {alias.name}" for alias in node.names if alias.name.startswith("_")]
    assert taken == []


def test_functions_are_short() -> None:
    long = {
        f"{path.relative_to(PACKAGE)}: {node.name}"
        for path, node in functions()
        if (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    }
    assert long == LONG


def test_what_a_benchmark_takes_from_the_package_is_there() -> None:
    """They are run less often than names move."""
    missing = []
    for path in SCRIPTS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "freemvmt":
                for alias in node.names:
                    try:
                        if not hasattr(import_module(node.module), alias.name):
                            import_module(f"{node.module}.{alias.name}")
                    except ModuleNotFoundError as error:
                        missing.append(f"{path.name}: {error}")
    assert missing == []


def test_nothing_in_the_package_can_run_what_it_reads() -> None:
    words = ("import pickle", "trust_remote_code", "allow_pickle=True", "torch.load(", "eval(", "exec(")
    texts = {path: path.read_text(encoding="utf-8").replace("retrieval(", "") for path in MODULES}
    assert [f"{name_of(path)}: {word}" for path, text in texts.items() for word in words if word in text] == []


@pytest.mark.parametrize("lines", ["import freemvmt", "import freemvmt.sweep_config", "import freemvmt.cli"])
def test_the_front_door_opens_without_torch_and_wandb(lines: str) -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'wandb', 'optuna', 'matplotlib'}"
    code = f"{lines}; import sys; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_the_help_needs_nothing_but_the_standard_library() -> None:
    code = "import sys; from freemvmt.cli import main; main([]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    before = subprocess.run([sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True)
    started = {name.partition(".")[0] for name in before.stdout.split()}  # what the environment loads at every start
    assert loaded - started - set(sys.stdlib_module_names) == {"freemvmt"}


def test_the_public_face_is_all_there() -> None:
    import freemvmt

    for name in freemvmt.__all__:
        assert getattr(freemvmt, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = freemvmt.nothing
