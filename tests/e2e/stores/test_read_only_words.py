"""A bundle that this process cannot write to, while another one changes it."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search.retriever import Retriever

from bundles import MakeBundle, Truth
from disks import mounted
from forked import Forks


@contextmanager
def read_only(source: Path, place: Path) -> Iterator[None]:
    """``source`` at ``place``, where nothing can be written even by root."""
    place.mkdir()
    with mounted(place):  # which skips where mounting is not permitted
        for command in (["mount", "--bind", source, place], ["mount", "-o", "remount,bind,ro", place]):
            subprocess.run(command, check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", place], check=True)


def test_a_bundle_that_cannot_be_written_to_is_searched_and_sees_what_others_change(
    make_bundle: MakeBundle, tiny_model: TwoTowersModel, corpus: dict[str, Document], tmp_path: Path
) -> None:
    bundle, place = make_bundle(tmp_path / "bundle"), tmp_path / "place"
    with read_only(bundle, place):
        reader, writer = Retriever.load(place), Retriever.load(bundle)
        assert not reader.writable
        truth = Truth(tiny_model, corpus)
        truth.check(reader, "river mountain", 20)
        for change in (lambda: reader.add([Document("n", "x")]), lambda: reader.delete(["d1"])):
            with pytest.raises(UserError, match=r"cannot be written to.*; "):
                change()
        for number in range(10):
            writer.add([Document(f"n{number}", "zebra river")])
            truth.documents[f"n{number}"] = Document(f"n{number}", "zebra river")
            writer.delete([f"d{number}"])
            del truth.documents[f"d{number}"]
            assert len(reader) == len(truth.documents)
            assert reader.search("zebra", 1)[0].text == "zebra river"
        truth.check(reader, "river zebra", 20)
        assert reader.explain("zebra", "n1").score > 0
        reader.close()
        writer.close()


def test_a_reader_that_cannot_write_holds_while_another_process_changes_the_bundle(
    children: Forks, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundle, place = make_bundle(tmp_path / "bundle"), tmp_path / "place"
    with read_only(bundle, place):
        reader = Retriever.load(place)
        child = children.start(change=str(bundle), step=0)
        seen = 0
        for _ in range(150):
            seen += reader.refresh()
            assert reader.search("river", 3)
        for _ in range(3):
            Retriever.load(place).close()
        os.kill(child, signal.SIGKILL)
        children.rest()
        reader.close()
