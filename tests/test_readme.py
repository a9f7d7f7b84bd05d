"""README says what is true: its tables are the results', its Python runs, its commands are all run somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import readme
import tables

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", tables.PAGES)
def test_tables_are_those_of_the_results(page: str) -> None:
    assert tables.filled(page) == (ROOT / page).read_text(encoding="utf-8"), "run benchmarks/tables.py"


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "It is 300 metres high." in done.stdout


def test_every_command_of_the_readme_is_run_by_the_readme_script() -> None:
    """`benchmarks/readme.py` runs what stands in README's shell blocks, as written, in a fresh clone."""
    commands = [line.partition("#")[0].strip() for line in readme.commands(README)]
    told = re.findall(r"^(?:uv run|cd freemvmt).*$", README, re.MULTILINE)
    assert [line.partition("#")[0].strip() for line in told] == commands
    assert len(commands) >= 10


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target
