"""The embedded data set, read from a package that the test writes and from the real ``json``."""

import gzip
import importlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from freemvmt.data.readers import pydocs
from freemvmt.data.readers.pydocs import Docstring
from freemvmt.errors import UserError

FILES = {
    "__init__.py": '''
"""A package that must not be imported.

It writes a file as soon as somebody imports it, and the tests look for that file.
"""
from pathlib import Path
from ._core import Thing, scale as rescale
from ._passed import *
(Path(__file__).parent / "imported").touch()
''',
    "_core.py": r'''
"""Private module whose text is nobody's business.

Nothing of this docstring is to be found in what the data set holds.
"""
class Thing:
    """A thing with parts that can be counted.

    Use :class:`~parcel.Thing` where ``parts`` matter, see `the docs <https://example.org>`_ [1]_.

    Parameters
    ----------
    parts : list of str
        The names of *all* parts, in the order in which they were built.

    Examples
    --------
    >>> Thing(["wheel"])
    <Thing of 1>
    """
    class Inner:
        def turn(self):
            """turn(angle) -> Thing

            Turn the thing around its axis.

            .. note:: The axis is the one that points up, unless somebody chose another.
            """
    def _hidden(self):
        """This one is private to the class.

        It must not be found even though it has a body of more than eight words.
        """
    @property
    def size(self):
        """How large the thing is.
        Args:
            unit: what to measure in, a name such as metre, foot or inch, in the singular
        """

def scale(factor):
    """Make everything larger by a factor.

    A factor below one makes everything smaller, and zero makes everything disappear.
    """
    def inside():
        """A function inside of another.

        Nobody can call it from outside, so nobody would want to look for it.
        """
''',
    "_passed.py": "from ._deep import plain\n",
    "_deep.py": '''
if True:
    try:
        async def plain():
            """Wait until all parts have arrived.

            The parts are sent by post, so that this can take a week or even two.
            """
    except ImportError:
        pass
''',
    "_native_docs.py": r'''
from parcel._native import _add_docstr as add_docstr
add_docstr(parcel.svd, r"""
svd(A, *, out=None) -> (Tensor, Tensor)

Computes the singular values of {input}.

""" + r"""
The values come in descending order, {{}} of course, and they are never negative. {note}
""".format(**args))
norm = _add_docstr(_native.linalg_norm, "Computes a norm.\n\nThe order is two when nothing else was asked for by you.")
add_newdoc("parcel.grid", "mesh", ("fill", """Fill the whole mesh with one value.

All of the former values are lost, and no copy of them is kept anywhere."""))
scale_all = 1
Thing.__doc__ = rf"""Second description of the thing.

It is assigned when the module runs, {note} as the optimizers of torch do."""
''',
    "odd.py": '''
"""Escapes \\d that Python \\w warns of.

They \\s are found in the docstrings of many old packages, and must not stop anyone.
"""
''',
    "copy.py": '''
def scale_again(factor):
    """Make everything larger by a factor.

    A factor below one makes everything smaller, and zero makes everything disappear.
    """
''',
    "broken.py": 'def half(:\n    """A file that is no Python.\n\n    It is passed over without a word."""\n',
    "tests/test_thing.py": '"""A test that is skipped.\n\nIts folder is not part of what users look for."""\n',
}

Read = Callable[..., list[Docstring]]


@pytest.fixture
def parcel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package ``parcel`` 1.0 on the search path."""
    site = tmp_path / "site"
    for name, source in FILES.items():
        file = site / "parcel" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
    _install(site, "1.0")
    monkeypatch.syspath_prepend(str(site))
    return site / "parcel"


def _install(site: Path, version: str) -> None:
    for old in site.glob("*.dist-info"):
        (old / "METADATA").unlink()
        old.rmdir()
    folder = site / f"parcel-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: parcel\nVersion: {version}\n")
    importlib.invalidate_caches()


@pytest.fixture
def read(parcel: Path, tmp_path: Path) -> Read:
    def read(workers: int = 1) -> list[Docstring]:
        return pydocs.read(["parcel", "a_package_that_is_missing"], workers, tmp_path / "cache")

    return read


def test_names_are_the_shortest_public_ones_in_the_order_of_the_files(read: Read) -> None:
    assert [docstring.name for docstring in read()] == [
        "parcel",
        "parcel.Thing",
        "parcel.Thing.Inner.turn",
        "parcel.Thing.size",
        "parcel.rescale",
        "parcel.plain",
        "parcel.svd",
        "parcel._native_docs.norm",
        "parcel.grid.mesh.fill",
        "parcel._native_docs.Thing",
        "parcel.odd",
    ]
    assert {docstring.package for docstring in read()} == {"parcel"}


def test_a_docstring_becomes_a_summary_and_a_body_of_plain_words(read: Read) -> None:
    texts = {docstring.name: (docstring.summary, docstring.body) for docstring in read()}
    assert texts["parcel.Thing"] == (
        "A thing with parts that can be counted.",
        "Use parcel.Thing where parts matter, see the docs. Parameters: parts : list of str "
        "The names of all parts, in the order in which they were built.",
    )
    assert texts["parcel.Thing.Inner.turn"] == (
        "Turn the thing around its axis.",
        "The axis is the one that points up, unless somebody chose another.",
    )
    assert texts["parcel.Thing.size"] == (
        "How large the thing is.",
        "Args: unit: what to measure in, a name such as metre, foot or inch, in the singular",
    )


def test_docstrings_that_a_call_or_an_assignment_sets(read: Read) -> None:
    texts = {docstring.name: (docstring.summary, docstring.body) for docstring in read()}
    assert texts["parcel.svd"] == (
        "Computes the singular values of.",
        "The values come in descending order, {} of course, and they are never negative.",
    )
    assert texts["parcel._native_docs.norm"][0] == "Computes a norm."
    assert texts["parcel.grid.mesh.fill"][0] == "Fill the whole mesh with one value."
    assert (
        texts["parcel._native_docs.Thing"][1] == "It is assigned when the module runs, as the optimizers of torch do."
    )


def test_nothing_is_imported(read: Read, parcel: Path) -> None:
    assert read(workers=2)
    assert not (parcel / "imported").exists()
    assert "parcel" not in sys.modules


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Only one paragraph, however long it may be, and however many words.", None),
        ("Two words.\n\nThe body is long enough, but nobody would ask with this.", None),
        ("A summary that is good enough.\n\nToo short a body.", None),
        ("A summary of words.\n\n>>> f(1, 2, 3)\n1 2 3 4 5 6 7 8 9 10 11 12", None),
        ("See help(type(self)) for accurate signature.\n\nThe body is long enough to be kept, if it were.", None),
        ("data (`int`, *optional*): The data to use.\n\nThe body is long enough to be kept, if it were.", None),
        ("Tool for old files.\n\nCopyright by somebody, who has all the rights that there are.", None),
        ("A lot of numbers.\n\n1 2 3 4 5 6 7 8 9 10 11 12 and some words that are not quite half", None),
        ("word " * 65 + "\n\nThe body is long enough to be kept, if it were.", None),
        (
            "min(input, dim) -> (Tensor, LongTensor)\n\nReturns the minimum of a row.\n\n"
            ":param dim: the dimension to reduce, or all of them\n:returns: the values and where they were",
            (
                "Returns the minimum of a row.",
                "dim: the dimension to reduce, or all of them returns: the values and where they were",
            ),
        ),
        (
            "Loads a [`Model`] from **here** or there.\r\n\r\nArgs:\r\n    name (`list[str]`, *optional*): the names "
            "to load, with *args and **kwargs\n\n```python\ncode()\n```\n\nReturns:\n",
            (
                "Loads a Model from here or there.",
                "Args: name (list[str], optional): the names to load, with *args and **kwargs",
            ),
        ),
    ],
)
def test_split(docstring: str, expected: tuple[str, str] | None) -> None:
    assert pydocs.split(docstring) == expected


def test_bodies_are_cut_and_halves_of_surrogate_pairs_dropped() -> None:
    _, body = pydocs.split("One two three.\n\n" + "word " * 300) or ("", "")
    assert len(body.split()) == 200
    assert pydocs.split("One two three.\n\nThe \ud800 body must be text that can be written to a file.") == (
        "One two three.",
        "The body must be text that can be written to a file.",
    )


def test_the_number_of_workers_changes_nothing(parcel: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        alone, helped = (
            pydocs.read(["parcel", "json", "html"], workers, tmp_path / str(workers)) for workers in (1, 2)
        )
    assert alone == helped
    assert not [record for record in caplog.records if "helper" in record.getMessage()]


def test_a_helper_that_cannot_be_started_is_replaced(
    read: Read, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with caplog.at_level(logging.INFO):
        assert len(read(workers=2)) == 11
    assert "a helper process failed" in caplog.text


def test_what_was_read_is_kept_until_a_version_changes(read: Read, parcel: Path) -> None:
    cold = read()
    (parcel / "odd.py").unlink()
    assert read() == cold
    _install(parcel.parent, "1.1")
    assert [docstring.name for docstring in read()] == [docstring.name for docstring in cold][:-1]


def test_a_package_without_metadata_is_read_again_when_a_file_changes(read: Read, parcel: Path) -> None:
    cold = read()
    metadata = next(parcel.parent.glob("*.dist-info"))
    (metadata / "METADATA").unlink()
    metadata.rmdir()
    importlib.invalidate_caches()
    assert read() == cold
    (parcel / "odd.py").write_text(
        '"""Something else in the file.\n\nAnd this is the body of it, which has enough words."""'
    )
    os.utime(parcel / "odd.py", ns=(1, 1))
    assert read()[-1].summary == "Something else in the file."


@pytest.mark.parametrize("damage", ["cut", "zeros", "text", "rows", "empty"])
def test_a_damaged_cache_is_made_anew(
    damage: str, read: Read, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cold = read()
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    damaged = {
        "cut": whole[:-20],
        "zeros": whole[:40] + bytes(40) + whole[80:],
        "text": b"no gzip",
        "rows": gzip.compress(b'["only", "two"]\n'),
        "empty": b"",
    }
    file.write_bytes(damaged[damage])
    assert read() == cold
    assert ("is damaged and is made anew" in caplog.text) == (damage != "empty")
    caplog.clear()
    assert read() == cold
    assert not caplog.records


def test_a_cache_that_cannot_be_written_is_no_error(
    parcel: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.INFO):
        assert len(pydocs.read(["parcel"], 1, tmp_path / "file" / "cache")) == 11
    assert "nothing is kept for the next run" in caplog.text


def test_nothing_found_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no docstrings in a_package_that_is_missing"):
        pydocs.read(["a_package_that_is_missing"], 1, tmp_path)


def test_the_real_json(tmp_path: Path) -> None:
    found = {docstring.name: docstring for docstring in pydocs.read(["json"], 1, tmp_path)}
    assert {"json", "json.dumps", "json.load", "json.JSONDecoder", "json.JSONEncoder.default"} <= set(found)
    assert found["json.dumps"].summary == "Serialize obj to a JSON formatted str."
    assert found["json.dumps"].body.startswith("If skipkeys is true then dict keys that are not basic types")
    assert not any("`" in docstring.body for docstring in found.values())
