"""What a power cut may leave behind, on recordings worked out by hand; and what strace makes of a small process."""

import random
import sys
from pathlib import Path

import pytest
from power_record import Unmodelled, record
from power_replay import ROOT, Fate, Mark, Names, Recording, Resize, Sync, Write, lay


def made(place: int, name: str, folder: int = ROOT) -> Names:
    return Names(((folder, name, place),))


def trees(recording: Recording, cut: int, draws: int = 50) -> set[tuple[tuple[str, bytes | None], ...]]:
    """All that is tried at ``cut``."""
    found = (recording.tree(cut, fates) for fates in recording.fates(cut, draws, random.Random(0)))
    return {tuple(sorted(tree.items())) for tree in found}


# A file 1 is made beside its place, synced or not, and renamed over file 2.
def replaced(synced: bool) -> Recording:
    operations = [made(1, "new"), Write(1, 0, b"later")]
    operations += [Sync(1, 2)] * synced
    operations += [Names(((ROOT, "new", None), (ROOT, "file", 1)))]
    return Recording({1: b"", 2: b"first"}, {ROOT: {"file": 2}}, operations)


def test_a_rename_may_be_there_before_the_content() -> None:
    found = trees(replaced(synced=False), 3)
    assert {content for tree in found for name, content in tree if name == "file"} == {
        b"first", b"later", b"", b"la", b"\0\0\0\0\0",
    }  # fmt: skip


def test_after_a_sync_of_the_file_its_place_holds_the_old_or_the_new() -> None:
    recording = replaced(synced=True)
    found = trees(recording, 4)
    assert {content for tree in found for name, content in tree if name == "file"} == {b"first", b"later"}
    assert recording.unsafe(4) == [0, 3]  # names, for the folder was not synced
    recording.operations.append(Sync(ROOT, 4))
    assert trees(recording, 5) == {(("file", b"later"),)}


def test_before_a_sync_of_its_folder_a_new_file_may_be_missing_though_it_is_synced() -> None:
    recording = Recording({1: b""}, operations=[made(1, "file"), Write(1, 0, b"all"), Sync(1, 2)])
    assert trees(recording, 3) == {(), (("file", b"all"),)}


def test_a_sync_covers_what_was_done_before_it_began() -> None:
    operations = [made(1, "file"), Sync(ROOT, 1), Write(1, 0, b"one"), Write(1, 3, b"two"), Sync(1, 3)]
    recording = Recording({1: b""}, operations=operations)
    assert recording.unsafe(5) == [3]
    assert trees(recording, 5) == {(("file", content),) for content in (b"one", b"onetwo", b"onet", b"one\0\0\0")}


def test_names_of_one_folder_keep_their_order_and_those_of_two_do_not() -> None:
    operations = [made(1, "one"), made(2, "two"), made(3, "other", folder=9), made(4, "more", folder=9)]
    recording = Recording(dict.fromkeys((1, 2, 3, 4), b""), {ROOT: {"folder": 9}, 9: {}}, operations)
    found = {frozenset(name for name, _ in tree) - {"folder"} for tree in trees(recording, 4, 500)}
    first = [set(), {"one"}, {"one", "two"}]
    second = [set(), {"folder/other"}, {"folder/other", "folder/more"}]
    assert found == {frozenset(one | other) for one in first for other in second}


def test_a_rename_between_folders_is_made_whole_or_not_at_all_and_takes_what_was_before_it_along() -> None:
    move = Names(((ROOT, "file", None), (9, "file", 1)))
    recording = Recording({1: b"all", 2: b""}, {ROOT: {"file": 1, "folder": 9}, 9: {}}, [made(2, "a"), move])
    names = {frozenset(name for name, _ in tree) for tree in trees(recording, 2, 100)}
    assert names == {
        frozenset({"file", "folder"}), frozenset({"a", "file", "folder"}), frozenset({"a", "folder", "folder/file"}),
    }  # fmt: skip
    recording.operations.append(Sync(9, 2))  # of the other folder, in which "a" does not stand
    assert trees(recording, 3) == {(("a", b""), ("folder", None), ("folder/file", b"all"))}


def test_folders_that_change_places_do_so_in_one_step() -> None:
    swap = Names(((ROOT, "one", 9), (ROOT, "two", 8)))
    recording = Recording({}, {ROOT: {"one": 8, "two": 9, "in": 7}, 7: {}, 8: {}, 9: {}}, [swap, made(6, "x", 8)])
    assert {tuple(name for name, _ in tree) for tree in trees(recording, 2)} == {
        ("in", "one", "two"), ("in", "one", "one/x", "two"), ("in", "one", "two", "two/x"),
    }  # fmt: skip


def test_what_is_in_a_folder_whose_name_is_lost_is_lost() -> None:
    operations = [made(9, "folder"), made(1, "file", folder=9), Write(1, 0, b"all"), Sync(1, 3), Sync(9, 3)]
    recording = Recording({1: b""}, operations=operations)
    assert trees(recording, 5) == {(), (("folder", None), ("folder/file", b"all"))}


@pytest.mark.parametrize(
    ("fate", "content"), [("lost", b"0123456789"), ("half", b"01234aa789"), ("zeroes", b"0123456789")]
)
def test_a_write_over_what_is_there_may_be_lost_or_done_by_half(fate: Fate, content: bytes) -> None:
    recording = Recording({1: b"0123456789"}, {ROOT: {"file": 1}}, [Write(1, 5, b"aaaa")])
    assert recording.tree(1, {0: fate}) == {"file": content}


def test_a_file_that_is_cut_and_written_anew_may_be_all_of_it() -> None:
    recording = Recording({1: b"first"}, {ROOT: {"file": 1}}, [Resize(1, 0), Write(1, 0, b"later!")])
    found = {content for tree in trees(recording, 2, 500) for _, content in tree}
    assert found == {b"first", b"later!", b"", b"lat", b"latst", b"\0" * 6, b"first\0"}


def test_what_nobody_can_reach_is_not_tried() -> None:
    gone = Names(((ROOT, "file", None),))
    recording = Recording({1: b"all"}, {ROOT: {"file": 1}}, [Write(1, 0, b"new"), gone, Sync(ROOT, 2), Mark("gone")])
    assert recording.unsafe(3) == []
    assert list(recording.states(range(5), 5, 0))[-1] == (4, {})  # the mark makes it another state
    assert recording.marks(3) == []
    assert recording.marks(4) == ["gone"]


def test_a_tree_is_laid_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "place" / "old").mkdir(parents=True)
    lay({"a": None, "a/b": b"content", "c": b""}, tmp_path / "place", 1_000_000)
    assert (tmp_path / "place" / "a" / "b").read_bytes() == b"content"
    assert sorted(path.name for path in (tmp_path / "place").iterdir()) == ["a", "c"]
    assert (tmp_path / "place" / "c").stat().st_mtime == 1_000_000


SCRIPT = """
import os, subprocess, sys, threading
os.mkdir("deep"); folder = os.open("deep", os.O_RDONLY)
file = os.open("one", os.O_RDWR | os.O_CREAT)
os.write(file, b"0123456789"); os.lseek(file, 2, 0); os.write(file, b"ab")
os.pwrite(file, b"\\n\\"", 20); os.writev(file, [b"c", b"d"]); os.ftruncate(file, 21); os.fsync(file); os.close(file)
with open("/dev/null", "wb", buffering=0) as marks:
    marks.write(b"done here at last"); marks.write(b"done there not here")
with open("one", "ab") as file: file.write(b"end")
one = threading.Thread(target=lambda: os.rename("one", "deep/name with a comma, and \\xe9"))
one.start(); one.join(); os.fsync(folder)
subprocess.run([sys.executable, "-c", "open('of a child', 'w').write('x')"], check=True)
os.link("of a child", "deep/again"); os.unlink("of a child"); os.unlink("again", dir_fd=folder)
"""


def test_what_a_process_does_is_read_in_its_order(strace: None, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "before").write_bytes(b"was there")
    (recording,) = record([sys.executable, "-c", SCRIPT], [here])
    deep, one, child = 2, 3, 4
    assert recording.files[1] == b"was there"
    assert recording.operations == [
        made(deep, "deep"), made(one, "one"), Write(one, 0, b"0123456789"), Write(one, 2, b"ab"),
        Write(one, 20, b'\n"'), Write(one, 4, b"cd"), Resize(one, 21), Sync(one, 7), Mark("at last"),
        Write(one, 21, b"end"),
        Names(((ROOT, "one", None), (deep, "name with a comma, and é", one))), Sync(deep, 11),
        made(child, "of a child"), Write(child, 0, b"x"), made(child, "again", folder=deep),
        Names(((ROOT, "of a child", None),)),
        Names(((deep, "again", None),)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "script",
    [
        "import mmap; f = open('f', 'wb+'); f.truncate(9); mmap.mmap(f.fileno(), 9)[0] = 1",
        "import os; os.open('f', os.O_WRONLY | os.O_CREAT | os.O_DSYNC)",
        "import os; os.symlink('/tmp', 'f')",
        "import shutil; open('f', 'w').write('x'); shutil.copyfile('f', 'g')",
        "import os; f = os.open('f', os.O_RDWR | os.O_CREAT); os.write(f, b'xyz'); os.lseek(f, 0, 0); os.read(f, 1); "
        "os.write(f, b'a')",  # reads are not followed
    ],
    ids=["mapping", "synced writes", "link", "copy", "read"],
)
def test_what_cannot_be_modelled_is_an_error(strace: None, script: str, tmp_path: Path) -> None:
    with pytest.raises(Unmodelled):
        record([sys.executable, "-c", script], [tmp_path])


def test_a_process_that_fails_is_no_recording(strace: None, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 3"):
        record([sys.executable, "-c", "import sys; sys.exit(3)"], [tmp_path])
