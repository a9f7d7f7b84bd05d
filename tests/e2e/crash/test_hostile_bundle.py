"""A bundle from someone who means harm: every sum is right, and what it says is not."""

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from freemvmt.errors import UserError
from freemvmt.search.retriever import Retriever
from freemvmt.search.stores.filters import short_hash
from freemvmt.storage.files import sha256_of
from freemvmt.storage.manifest import is_inside, write_manifest

from bundles import MakeBundle
from fixtures_search import SIZE
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


@pytest.mark.parametrize(
    "name", ["words", "model", "documents.utf8", "fields", "words.json", "model/model.safetensors", "lock"]
)
def test_no_link_leads_out_of_a_bundle(
    name: str, make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, outside = make_bundle(tmp_path / "bundle"), tmp_path / "outside"
    shutil.move(bundle / name, outside) if (bundle / name).exists() else outside.write_text("mine")
    (bundle / name).symlink_to(outside)
    for words in (["search", bundle, "river"], ["delete", bundle, "d1"], ["retune", bundle, "--back"]):
        said = refusal(capsys, tmp_path, *words)
        assert f"{bundle / name} is a link" in said


def test_a_bundle_may_be_reached_by_a_link(make_bundle: MakeBundle, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(make_bundle(tmp_path / "bundle"))
    assert answers(tmp_path / "link")


def changed_array(name: str, change: Callable[[NDArray[Any]], None]) -> Callable[[Path], Path]:
    """Change the array in a file ``name`` of the bundle."""

    def changed(bundle: Path) -> Path:
        path = bundle / name
        array = np.load(path)
        change(array)
        np.save(path, array)
        return path

    return changed


def other_array(name: str, values: Any) -> Callable[[Path], Path]:
    """Put other values in the place of an array."""

    def changed(bundle: Path) -> Path:
        np.save(bundle / name, values)
        return bundle / name

    return changed


def other_bytes(name: str, content: bytes) -> Callable[[Path], Path]:
    """Put other bytes in the place of the first of a text."""

    def changed(bundle: Path) -> Path:
        path = bundle / name
        path.write_bytes(content + path.read_bytes()[len(content) :])
        return path

    return changed


def swap(array: NDArray[Any]) -> None:
    array[[1, 2]] = array[[2, 1]]


def beyond(array: NDArray[Any]) -> None:
    array[1] = array[-1] + 1


def below(array: NDArray[Any]) -> None:
    array[1] = -7


def shifted(array: NDArray[Any]) -> None:
    array[-1] += 1


def field(name: str, more: str = "") -> str:
    return f"fields/{short_hash(name)}{more}"


SPELLINGS = field("source", "-spellings")
DAMAGE: dict[str, Callable[[Path], Path]] = {
    "a field of another kind": other_array(field("flag", ".npy"), np.zeros(SIZE)),
    "a field as numbers": other_array(field("source", ".npy"), np.zeros(SIZE)),
    "a field of fewer documents": other_array(field("year", ".npy"), np.zeros(SIZE - 1)),
    "a field of objects": other_array(field("year", ".npy"), np.array([{}] * SIZE)),
    "a field of two dimensions": other_array(field("year", ".npy"), np.zeros((SIZE, 1))),
    "a field that is no array": other_bytes(field("year", ".npy"), b"PK"),
    "a field whose header is none": other_bytes(field("year", ".npy"), b"\x93NUMPY\x01\0\x76\0{'descr': ('<i8',"),
    "codes beyond the spellings": changed_array(field("source", ".npy"), lambda array: array.put(3, 99)),
    "codes below": changed_array(field("source", ".npy"), below),
    "lists that go backwards": changed_array(field("tags", ".npy"), lambda array: array.put(5, array[-1])),
    "lists that begin outside": changed_array(field("tags", ".npy"), lambda array: array.put(0, 1)),
    "lists that end outside": changed_array(field("tags", ".npy"), shifted),
    "members as lists": other_array(field("tags", "-members.npy"), np.arange(5)),
    "spellings that are not text": other_bytes(f"{SPELLINGS}.utf8", b"\xff"),
    "spellings that go backwards": changed_array(f"{SPELLINGS}.npy", swap),
    "spellings outside": changed_array(f"{SPELLINGS}.npy", shifted),
    "texts that are not text": other_bytes("documents.utf8", b"\xff"),
    "texts that go backwards": changed_array("documents.npy", swap),
    "texts that begin outside": changed_array("documents.npy", lambda array: array.put(0, -1)),
    "texts that lie outside": changed_array("documents.npy", beyond),
    "texts that lie before": changed_array("documents.npy", below),
    "texts that end outside": changed_array("documents.npy", shifted),
    "no texts": other_array("documents.npy", np.zeros(0, np.int64)),
    "metadata that is no JSON": changed_array("documents.npy", lambda array: array.put(4, array[4] + 1)),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_texts_and_fields_are_what_a_bundle_holds(
    case: str, make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    path = DAMAGE[case](bundle)
    resealed(bundle, str(path.relative_to(bundle)))
    said = refusal(capsys, tmp_path, "search", bundle, "river", "--filter", "year>1990")
    stem = path.with_name(re.split(r"[-.]", path.name)[0])  # of several files of one column, any may be named
    assert re.search(rf"{re.escape(str(stem))}\S* is damaged \(", said)
    assert said.endswith("; index the corpus again")


def test_a_field_and_texts_that_are_missing_or_shorter(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    name = field("source", ".npy")
    (bundle / name).unlink()
    rewrite(bundle / "manifest.json", lambda manifest: manifest["files"].pop(name))
    assert f"{bundle / name} is damaged (No such file" in refusal(capsys, tmp_path, "search", bundle, "river")
    shutil.rmtree(bundle)
    bundle = make_bundle(tmp_path / "bundle")
    texts = np.load(bundle / "documents.npy")
    for cut, why in ((1, "texts, not 4 of each document"), (4, "values, not 1,099")):
        np.save(bundle / "documents.npy", texts[:-cut])
        content = (bundle / "documents.utf8").read_bytes()[: texts[-1 - cut]]
        (bundle / "documents.utf8").write_bytes(content)
        for name in ("documents.npy", "documents.utf8"):
            resealed(bundle, name)
        assert why in refusal(capsys, tmp_path, "search", bundle, "river")
