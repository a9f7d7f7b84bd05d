"""Arrays, strings and columns in files: what was written comes out, and what is damaged is refused."""

import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.search.stores.arrays import StoredStrings, read_array, write_array, write_strings
from freemvmt.search.stores.columns import Columns
from freemvmt.search.stores.filters import FieldKind, check, kinds_of
from freemvmt.search.stores.texts import Texts, write_texts

from bundles import make_documents, make_filter, make_metadata

INT64 = np.dtype("<i8")


@pytest.mark.parametrize("size", [0, 1, 1000, 200_000])
@pytest.mark.parametrize("type", ["<i8", "<i4", "<f8", "i1"])
def test_an_array_is_read_as_it_was_written_and_as_numpy_reads_it(tmp_path: Path, size: int, type: str) -> None:
    written = np.arange(size).astype(type)
    write_array(tmp_path / "a.npy", written)
    for found in (read_array(tmp_path / "a.npy", np.dtype(type)), np.load(tmp_path / "a.npy", mmap_mode="r")):
        assert found.dtype == type
        np.testing.assert_array_equal(found, written)
    assert isinstance(read_array(tmp_path / "a.npy", np.dtype(type)).base, np.memmap) == (written.nbytes >= 2**20)
    with pytest.raises(UserError, match=r"a.npy is damaged \(its values are of another kind than int16\); index"):
        read_array(tmp_path / "a.npy", np.dtype("<i2"))


@pytest.mark.parametrize(
    "strings",
    [[], [""], ["", "a", "été", "日本", "a\0b", "x" * 300, ""], [f"{number} été" for number in range(200_000)]],
    ids=len,
)
def test_strings_are_read_as_they_were_written(tmp_path: Path, strings: list[str]) -> None:
    write_strings(tmp_path / "s", iter(strings))
    stored = StoredStrings(tmp_path / "s")
    stored.check()
    assert len(stored) == len(strings)
    assert stored.all() == strings
    for first in (0, len(strings) // 2):
        assert stored.read(first, 3) == strings[first : first + 3]
    offsets = np.load(tmp_path / "s.npy", mmap_mode="r")
    assert offsets.shape == (len(strings) + 1,)
    assert offsets[-1] == (tmp_path / "s.utf8").stat().st_size


def test_texts_are_written_and_opened_without_holding_them(tmp_path: Path) -> None:
    count, length = 3000, 10_000

    def documents() -> Iterator[Document]:
        for number in range(count):
            yield Document(f"d{number}", f"{number} ".ljust(length, "x"), "title", {"n": number})

    tracemalloc.start()
    write_texts(tmp_path, documents())
    texts = Texts(tmp_path)
    assert texts[count - 1] == Document(f"d{count - 1}", f"{count - 1} ".ljust(length, "x"), "title", {"n": count - 1})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < count * length / 4
    assert len(texts) == count
    assert [texts.id_of(7), texts.content_of(7)[:10]] == ["d7", "title 7 xx"]


def test_texts_are_the_documents(tmp_path: Path) -> None:
    documents = make_documents((f"d{number}" for number in range(500)), seed=4)
    write_texts(tmp_path, documents)
    texts = Texts(tmp_path)
    assert [texts[row] for row in range(len(texts))] == documents
    assert [texts.content_of(row) for row in range(len(texts))] == [document.content for document in documents]


@pytest.mark.parametrize("size", [0, 1, 400])
def test_columns_answer_from_files_as_they_did_before(tmp_path: Path, size: int) -> None:
    draw = random.Random(size)
    metadata = [make_metadata(draw) for _ in range(size)] or [{}]
    kinds: dict[str, FieldKind] = {"n": "number", "t": "string", "b": "boolean"}  # of which no document has a value
    for item in metadata:
        kinds |= kinds_of(item, kinds, "here")
    columns = Columns.of(metadata, kinds)
    columns.write(tmp_path)
    read = Columns.read(tmp_path, kinds, len(metadata))
    everything = np.ones(len(metadata), np.bool_)
    for _ in range(300):
        conditions = {name: value for name, value in make_filter(draw).items() if name in kinds}
        expected = columns.mask(check(conditions, kinds)).tolist()
        assert read.mask(conditions).tolist() == expected
    for name in kinds:
        assert read.counts(name, everything) == columns.counts(name, everything)


def test_names_of_fields_may_hold_what_no_file_name_may(tmp_path: Path) -> None:
    names = ["a/b", "..", "a\0", "Source", "source", "x" * 5000, "日本", "\n"]
    columns = Columns.of([{name: number for number, name in enumerate(names)}], dict.fromkeys(names, "number"))
    columns.write(tmp_path)
    read = Columns.read(tmp_path, columns.kinds, 1)
    assert all(read.mask({name: number}).tolist() == [True] for number, name in enumerate(names))


def test_whatever_happens_to_an_array_it_is_refused_or_read(tmp_path: Path) -> None:
    draw = random.Random(1)
    path = tmp_path / "a.npy"
    write_array(path, np.arange(40))
    sound = path.read_bytes()
    refused = 0
    for number in range(1500):
        damaged = bytearray(sound)
        if number % 10 == 0:
            del damaged[draw.randrange(len(damaged)) :]
        for _ in range(draw.randint(1, 4) if damaged else 0):  # most of them in the header
            damaged[draw.randrange(128 if draw.random() < 0.7 else len(sound)) % len(damaged)] = draw.randrange(256)
        path.write_bytes(damaged)
        said = "; "
        try:
            assert read_array(path, INT64).ndim == 1
        except UserError as error:
            said = str(error)
            refused += 1
        assert "; " in said
        assert "\n" not in said
    assert refused > 1000


STRINGS = ["", "a", "été", "日本"]
OFFSETS = [0, 0, 1, 6, 12]
WRONG: dict[str, tuple[list[int], bytes | None]] = {
    "backwards": ([0, 6, 1, 6, 12], None),
    "outside": ([0, 0, 1, 13, 12], None),
    "before": ([0, -1, 1, 6, 12], None),
    "within a character": ([0, 0, 1, 5, 12], None),
    "no text": (OFFSETS, b"a\xff".ljust(12)),
    "a later beginning": ([1, 1, 1, 6, 12], None),
    "an earlier end": ([0, 0, 1, 6, 9], None),
    "none": ([], b""),
    "text that is cut": (OFFSETS, "".join(STRINGS).encode()[:-1]),
}


@pytest.mark.parametrize("case", WRONG)
def test_strings_that_are_damaged_are_refused_when_checked_and_when_read(tmp_path: Path, case: str) -> None:
    offsets, content = WRONG[case]
    write_strings(tmp_path / "s", STRINGS)
    assert np.load(tmp_path / "s.npy").tolist() == OFFSETS
    write_array(tmp_path / "s.npy", np.array(offsets, INT64))
    if content is not None:
        (tmp_path / "s.utf8").write_bytes(content)
    for act in (StoredStrings.check, StoredStrings.all):
        with pytest.raises(UserError, match=r"s.utf8 is damaged \(.*\); index the corpus again"):
            act(StoredStrings(tmp_path / "s"))


def test_a_row_that_is_damaged_is_refused_when_it_is_read(tmp_path: Path) -> None:
    write_texts(tmp_path, [Document(f"d{number}", "été", metadata={"a": 1}) for number in range(3)])
    sound = np.load(tmp_path / "documents.npy")
    for place, change in ((5, 10**6), (5, -(10**6)), (7, 1)):  # row 1 has places 4 to 8
        offsets = sound.copy()
        offsets[place] += change
        write_array(tmp_path / "documents.npy", offsets)
        texts = Texts(tmp_path)
        assert [texts[0].id, texts[2].id] == ["d0", "d2"]
        with pytest.raises(UserError, match=r"documents.utf8 is damaged"):
            _ = texts[1]


@pytest.mark.parametrize("suffix", [".utf8", ".npy"])
def test_a_file_that_is_missing_is_refused(tmp_path: Path, suffix: str) -> None:
    write_strings(tmp_path / "s", STRINGS)
    Path(f"{tmp_path / 's'}{suffix}").unlink()
    with pytest.raises(UserError, match=rf"s{suffix} is damaged \(No such file or directory\); index"):
        StoredStrings(tmp_path / "s")


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``np.save`` says how many bytes it wrote, and not why no more."""
    values: Any = np.zeros(10)
    with pytest.raises(OSError, match="No space left on device"):
        write_array(Path("/dev/full"), values)
