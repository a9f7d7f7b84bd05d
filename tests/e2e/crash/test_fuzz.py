"""A short form of `benchmarks/fuzz.py`: every kind of file, a few mutations each, seeds that it does not use."""

import re
from collections import Counter
from pathlib import Path

import fuzz
import pytest
from fuzz_targets import Target, make

NAMES = (
    "model", "accumulators", "checkpoint", "bundle, pq", "bundle, hnsw", "token cache", "teacher's vectors",
    "docstrings", "rows, JSONL", "pairs, TSV", "pairs, Parquet", "corpus, JSONL", "collection, BEIR", "qrels", "run",
    "sweep",
)  # fmt: skip


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Target, Path]]:
    return {target.name: (target, folder) for target, folder in make(tmp_path_factory.mktemp("targets"))}


def test_every_kind_of_file_is_there(targets: dict[str, tuple[Target, Path]]) -> None:
    assert tuple(targets) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_mutated_files_are_read_right_or_refused_in_one_line(
    name: str, targets: dict[str, tuple[Target, Path]]
) -> None:
    seen, wrong = fuzz.fuzz(*targets[name], mutations=8 if name == "docstrings" else 40, seed=1)
    assert wrong == []
    assert seen.total() > 0


def test_no_file_that_is_written_can_hold_code(targets: dict[str, tuple[Target, Path]]) -> None:
    """No pickle, which begins with its protocol; no zip, as torch.save writes it; no array of objects."""
    kinds = Counter[str]()
    for _, folder in targets.values():
        for path in folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert not re.match(rb"\x80[\x02-\x05]|PK\x03\x04|PK\x05\x06", content), path
                assert not re.match(rb"\x93NUMPY.{4,200}'O'", content, re.S), path
                kinds[path.suffix] += 1
    assert {".safetensors", ".json", ".utf8", ".faiss", ".npy", ".gz", ".db"} <= set(kinds)


def test_the_fuzzer_sees_what_goes_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("0123456789" * 20)

    def hasty(folder: Path) -> object:
        text = (folder / "file").read_text()
        return text if "0" in text else text.index("0")

    believing = Target("believing", lambda folder: [folder / "file"], hasty)
    seen, wrong = fuzz.fuzz(believing, tmp_path, 60, 0)
    kinds = Counter("another" if "another result" in one else "raised" for one in wrong)
    assert kinds["another"] > 20
    assert kinds["raised"] > 5
    assert seen == {}
    exact = Target("exact", believing.files, hasty, truth=lambda folder: (folder / "file").read_text(encoding="ascii"))
    assert fuzz.fuzz(exact, tmp_path, 60, 0)[0]["read"] > 20
