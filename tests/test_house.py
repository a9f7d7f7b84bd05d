"""The rules of the house that a tool can hold: floors, names, sizes, and what may not stand in it."""

import ast
import subprocess
import sys
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "freemvmt"
MODULES = sorted(PACKAGE.rglob("*.py"))

# From the ground up; a module imports from its own floor or from below. The longest prefix decides.
FLOORS: list[set[str]] = [
    {
        "errors",
        "extras",
        "locks",
        "cores",
        "homes",
        "files",
        "strays",
        "outputs",
        "sealed",
        "kept",
        "config",
        "console",
        "shell",
    },
    {"hub", "text", "devices"},
    {"towers"},
    {"model", "model_files", "foreign"},
    {"search"},
    {"trec"},
    {"evaluation"},
    {"exporting"},
    {"worst"},
    {"learning"},
    {"integrations"},
    {"training", "server", "publishing"},
    {"sweep_study", "sweep_report", "quickstart", "run_report"},
    {"sweeps"},
    {
        "cli",
        "cli_bundle",
        "cli_export",
        "cli_measure",
        "cli_model",
        "cli_serve",
        "sweep_config",
        "main",
        "__init__",
        "__main__",
    },
]


def floor(module: str) -> int:
    top = module.split(".")[0]
    return next(level for level, names in enumerate(FLOORS) if top in names)


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = node.module == "freemvmt"
            names = [f"freemvmt.{alias.name}" for alias in node.names] if whole else [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.removeprefix("freemvmt.") for name in names if name.startswith("freemvmt.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_the_floors_only(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts
    for imported in imports_of(path):
        assert floor(imported) <= floor(own[0]), f"{path.name} imports {imported}, which is above it"


def test_no_module_hides_an_importable_one() -> None:
    """`python main.py` puts freemvmt/ first on the path: its names must not be those of other modules."""
    own = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/*.py")}
    others = set(sys.stdlib_module_names) | set(packages_distributions())
    assert own & others - {"__init__", "__pycache__"} == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short_and_begin_with_their_idea(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_takes_from_the_package_is_there(path: Path) -> None:
    """They are run less often than names move."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "freemvmt":
            module = import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    import_module(f"{node.module}.{alias.name}")


def test_nothing_in_the_package_can_run_what_it_reads() -> None:
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        for word in ("import pickle", "trust_remote_code", "allow_pickle=True", "torch.load(", "eval(", "exec("):
            assert word not in text.replace("retrieval(", ""), f"{path} holds {word}"


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
