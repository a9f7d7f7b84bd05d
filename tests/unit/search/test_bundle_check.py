"""The check of a bundle's files begins before the bundle is opened, imports little, and misses nothing."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.search.bundle.files import FileCheck
from freemvmt.search.retriever import Retriever

from bundles import MakeBundle


def loaded(code: str) -> set[str]:
    """The modules that a new process has loaded after ``code``."""
    lines = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(lines, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split())


def test_the_check_begins_before_numpy_is_imported(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    code = "from pathlib import Path; from freemvmt.search.bundle.files import FileCheck"
    modules = loaded(f"{code}; FileCheck(Path({str(bundle)!r})).finish()")
    assert not {"numpy", "faiss", "tantivy", "tokenizers"} & modules


def test_a_search_of_averages_imports_what_it_needs_and_no_more(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    modules = loaded(f"from freemvmt.cli import main; assert main(['search', {str(bundle)!r}, 'zebra']) == 0")
    assert {"numpy", "faiss", "tantivy", "tokenizers"} <= modules
    heavy = {"torch", "transformers", "datasets", "pandas", "pyarrow", "safetensors", "onnxruntime", "pymilvus"}
    own = {"reranker", "onnx_encoder", "bundle.milvus", "bundle.build"}
    assert not (heavy | {"nanotoken", "rich", "typeguard"} | {f"freemvmt.search.{name}" for name in own}) & modules


def test_what_a_check_finds_is_refused_when_the_bundle_is_opened(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    vectors = bundle / "vectors.faiss"
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"\7")
    with pytest.raises(UserError, match=r"vectors.faiss was changed since it was written"):
        Retriever.load(bundle, verify=FileCheck(bundle))
    with pytest.raises(UserError, match=r"there is no .*manifest.json"):
        Retriever.load(tmp_path / "none", verify=FileCheck(tmp_path / "none"))


def test_of_a_bundle_that_takes_the_place_of_the_checked_one_the_new_files_are_compared(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundle, other = make_bundle(tmp_path / "bundle", "pq"), make_bundle(tmp_path / "other")
    with contextlib.closing(Retriever.load(other)) as retriever:
        retriever.add([Document("new", "zebra")])
    check = FileCheck(bundle)
    check.finish()
    shutil.rmtree(bundle)
    other.rename(bundle)
    with contextlib.closing(Retriever.load(bundle, verify=check)) as retriever:
        assert retriever.search("zebra", 1)[0].id == "new"
