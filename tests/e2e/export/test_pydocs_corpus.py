"""The docstrings of the installed packages as a corpus, and read by a script."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from freemvmt.data.corpus import read_corpus
from freemvmt.data.readers import pydocs


def test_pydocs_are_documents_with_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydocs, "read", partial(pydocs.read, ("numpy", "networkx", "click"), workers=1))
    docs = list(read_corpus("pydocs"))
    known = pydocs.sample(None, 0)
    assert len(docs) == len(known) == len({document.id for document in docs}) > 1000
    for document, doc in zip(docs, known, strict=True):
        assert document.id == doc.name or document.id.startswith(f"{doc.name}#")
        assert document.title == doc.name
        assert document.content == f"{doc.name} {doc.summary} {doc.body}"
        assert document.metadata == {"package": doc.package}


def test_a_script_without_a_guard_and_standard_input_work(tmp_path: Path) -> None:
    """The helper processes do not run the script that started them again."""
    code = (
        "from pathlib import Path\n"
        "from freemvmt.data.readers import pydocs\n"
        f"with Path({str(tmp_path / 'runs')!r}).open('a') as file: file.write('run ')\n"
        f"found = pydocs.read(['click'], 2, Path({str(tmp_path)!r}) / str(len(__import__('sys').argv)))\n"
        f"assert len(found) == {len(pydocs.read(['click'], 1, tmp_path / 'here'))}, found\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONWARNINGS": "error"}
    subprocess.run([sys.executable, str(script), "argument"], env=environment, check=True)
    subprocess.run([sys.executable, "-"], input=code.encode(), env=environment, check=True)
    assert (tmp_path / "runs").read_text() == "run run "
