"""A bundle from someone who means harm: every sum is right, and what it says is not."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from freemvmt.errors import UserError
from freemvmt.search.retriever import Retriever
from freemvmt.storage.files import sha256_of
from freemvmt.storage.manifest import is_inside, write_manifest

from bundles import MakeBundle
from refusals import refusal

Change = Callable[[dict[str, Any]], None]
OUTSIDE = ("../outside", "/etc/passwd", "model/../../outside", "..", "", "/", "a\0b")
_VALUES = (None, True, -1, 0, 2**70, 0.5, "", "..", "exact", [], {}, [[]], {"": {}}, {"a": 1})


def rewrite(path: Path, change: Change) -> None:
    """Change a sealed file as if it had always been so."""
    content = json.loads(path.read_text())
    del content["checksum"]
    change(content)
    write_manifest(path, content)


def resealed(bundle: Path, name: str) -> None:
    """Let the manifest hold the size and sum of a file as it is now."""
    now = {"bytes": (bundle / name).stat().st_size, "sha256": sha256_of(bundle / name)}
    rewrite(bundle / "manifest.json", lambda manifest: manifest["files"].update({name: now}))


def any_change(draw: random.Random) -> Change:
    """Something taken away, put in, or made something else, wherever it stands."""

    def change(content: dict[str, Any]) -> None:
        place: Any = content
        while True:
            key = draw.choice(sorted(place))
            inner = place[key]
            if not (isinstance(inner, dict) and inner) or draw.random() < 0.4:
                break
            place = inner
        if draw.random() < 0.3:
            del place[key]
        elif draw.random() < 0.2:
            place[draw.choice(OUTSIDE)] = place.pop(key)
        else:
            place[key] = draw.choice(_VALUES)

    return change


@pytest.mark.parametrize("name", ["manifest.json", "words.json", "model/config.json"])
def test_whatever_a_bundle_says_it_is_refused_or_answers(name: str, make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle, draw = make_bundle(tmp_path / "bundle"), random.Random(name)
    wanted = [hit.id for hit in answers(bundle)]
    sound, manifest = (bundle / name).read_bytes(), (bundle / "manifest.json").read_bytes()
    refused = 0
    for _ in range(150):
        rewrite(bundle / name, any_change(draw))
        if name.startswith("model/"):
            resealed(bundle, name)
        try:
            assert [hit.id for hit in answers(bundle)] == wanted
        except UserError as error:
            refused += "\n" not in str(error) and "; " in str(error)
        (bundle / "manifest.json").write_bytes(manifest)
        (bundle / name).write_bytes(sound)
    assert refused > 50


def answers(bundle: Path) -> list[Any]:
    retriever = Retriever.load(bundle)
    try:
        return list(retriever.search("river doctor", 5, "hybrid", filter={"year": {"gte": 1990}}))
    finally:
        retriever.close()


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("file", ["manifest.json", "words.json"])
def test_no_name_leads_out_of_a_bundle(
    file: str, name: str, make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outside").write_text("mine")
    bundle = make_bundle(tmp_path / "bundle")
    answers(bundle)  # which makes the file that is locked
    seal = {"bytes": 4, "sha256": sha256_of(tmp_path / "outside")}
    rewrite(bundle / file, lambda content: content["files"].update({name: seal}))
    assert f"names a file outside of it ({name!r})" in refusal(capsys, tmp_path, "search", bundle, "river")
    assert not is_inside(name)
    assert is_inside("model/config.json")


@pytest.mark.parametrize("name", ["words", "model", "documents.arrow", "words.json", "model/model.safetensors", "lock"])
def test_no_link_leads_out_of_a_bundle(
    name: str, make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, outside = make_bundle(tmp_path / "bundle"), tmp_path / "outside"
    shutil.move(bundle / name, outside) if (bundle / name).exists() else outside.write_text("mine")
    (bundle / name).symlink_to(outside)
    for words in (["search", bundle, "river"], ["delete", bundle, "d1"]):
        said = refusal(capsys, tmp_path, *words)
        assert f"{bundle / name} is a link" in said


def test_a_bundle_may_be_reached_by_a_link(make_bundle: MakeBundle, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(make_bundle(tmp_path / "bundle"))
    assert answers(tmp_path / "link")


def no_texts(size: int) -> pa.Array:
    """Strings the last of which is not UTF-8."""
    offsets = bytes(8 * size) + (1).to_bytes(8, "little")
    return pa.Array.from_buffers(pa.large_string(), size, [None, pa.py_buffer(offsets), pa.py_buffer(b"\xff")])


COLUMNS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "a field of another kind": lambda table: table.set_column(0, table.column_names[0], pa.nulls(len(table))),
    "a field that is missing": lambda table: table.drop_columns(table.column_names[0]),
    "a field as numbers": lambda table: table.set_column(0, table.column_names[0], pa.array([1.5] * len(table))),
    "names that are not text": lambda table: table.set_column(0, "source", no_texts(len(table))),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_are_those_that_the_bundle_names(
    case: str, make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle / "fields.arrow"
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    table = table.select(["source", *(name for name in table.column_names if name != "source")])
    changed = COLUMNS[case](table)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, changed.schema) as writer:
        writer.write_table(changed)
    resealed(bundle, "fields.arrow")
    assert "fields.arrow" in refusal(capsys, tmp_path, "search", bundle, "river")


def test_texts_have_the_columns_that_texts_have(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle / "documents.arrow"
    table = pa.ipc.open_file(path.read_bytes()).read_all().drop_columns("text")
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    resealed(bundle, "documents.arrow")
    assert "documents.arrow has other columns" in refusal(capsys, tmp_path, "search", bundle, "river")
