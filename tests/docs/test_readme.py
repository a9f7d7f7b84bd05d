"""README says what is true: its tables are the results', its Python runs, its commands are all run somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import readme
import tables

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", tables.PAGES)
def test_tables_are_those_of_the_results(page: str) -> None:
    assert tables.filled(page) == (ROOT / page).read_text(encoding="utf-8"), "run docs/build/tables.py"


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "It is 300 metres high." in done.stdout


def test_every_command_of_the_readme_is_run_by_the_readme_script() -> None:
    """`benchmarks/readme.py` runs what stands in README's shell blocks, as written; so does `.ci/run`, by `--check`."""
    commands = [command for command, _, _ in readme.placed(README)]
    shown = re.findall(r"^(?:uv run|cd freemvmt|echo).*$", README, re.MULTILINE)
    assert [line.partition("#")[0].strip() for line in shown] == commands
    assert {
        "cd freemvmt && uv sync",
        "uv run python main.py",
        "uv run python main.py --no-wandb",
        "uv run python main.py --epochs 5 --batch-size 16 --learning-rate 2e-4 --max-samples 5000",
        "uv run python main.py --sweep",
        *(f"uv run python sweep_config.py --config {name} --count 10" for name in ("basic", "extensive", "quick")),
    } <= set(commands)
    assert "benchmarks/readme.py --check" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_a_command_of_the_readme_runs_where_its_block_has_gone() -> None:
    page = "```sh\none\ncd a && two   # why\nthree\n```\n```python\nfour\n```\n```sh\nfive\n```\n"
    assert list(readme.placed(page)) == [
        ("one", ".", "one"),
        ("cd a && two", "a", "two"),
        ("three", "a", "three"),
        ("five", ".", "five"),
    ]


@pytest.mark.parametrize(
    ("script", "failed"), [("true", False), ("exit 2", True), ("echo 'Traceback (most recent call last)' >&2", True)]
)
def test_a_traceback_fails_a_command_that_ends_well(tmp_path: Path, script: str, failed: bool) -> None:
    assert readme.failed(*readme.ran(script, tmp_path, {})) == failed


def test_what_this_machine_has_set_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "WANDB_API_KEY", "TWO_TOWERS_CACHE", "PYTHONPATH", "UV_PROJECT_ENVIRONMENT"):
        monkeypatch.setenv(name, "/ours")
    found = readme.bare_environment(tmp_path, readme.NO_HUB)
    assert found["HOME"] == str(tmp_path)
    assert [name for name, value in found.items() if value == "/ours"] == []


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target
