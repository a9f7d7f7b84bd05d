"""The documentation says what is true: blocks are run or say why not, flags are read, the help page is fresh."""

from pathlib import Path

import doc_pages
import help_page
import pictures
import pytest

from freemvmt.cli import VERBS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NAMES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
RUN = {str(path.relative_to(DOCS)) for path in doc_pages.pages()}


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_pages_do_what_they_show(tmp_path: Path) -> None:
    """The tutorial, and what goes on with it, in one folder: each command, file and line of Python, and each answer."""
    with doc_pages.Pages(tmp_path) as transcript:
        for path in doc_pages.pages():
            page = path.read_text(encoding="utf-8")
            found = transcript.filled(page)
            shown, real = (doc_pages.lasting(one).splitlines() for one in (page, found))
            assert real == shown, f"{path.name}: run docs/build/doc_pages.py and read what changed"


@pytest.mark.parametrize("name", NAMES)
def test_no_block_is_left_out(name: str) -> None:
    """A block is run here or by the test of its own page, or it says why not; what is not run is read at least."""
    for block in doc_pages.blocks(text_of(name)):
        if block.why:
            assert len(block.why) > 8, name
        elif name in doc_pages.ELSEWHERE:
            assert block.kind in ("json", "text", "python"), f"{name}: a block of {block.kind!r} that nothing runs"
        else:
            assert name in RUN, f"{name}: a block that nothing runs; add a line <!-- not run: why --> above it"
        if block.kind == "python":
            compile(block.body, name, "exec")
        for line in doc_pages.commands(block.body) if block.kind == "sh" else []:
            for argv in doc_pages.flags_of(line):
                doc_pages.check_flags(argv)


def test_every_command_is_shown_in_a_how_to_or_the_tutorial() -> None:
    shown = {
        argv[0]
        for name in NAMES
        for block in doc_pages.blocks(text_of(name))
        if block.kind == "sh" or block.body.startswith("$ ")
        for line in doc_pages.commands(block.body)
        for argv in doc_pages.flags_of(line)
    }
    assert shown == set(VERBS)


def test_a_flag_that_no_command_takes_is_found() -> None:
    from freemvmt.errors import UserError

    (argv,) = doc_pages.flags_of("torchrun --nproc-per-node 2 -m freemvmt train --dataset x --epoch-count 3  # wrong")
    assert argv == ["train", "--dataset", "x", "--epoch-count", "3"]
    with pytest.raises(UserError, match="epoch-count"):
        doc_pages.check_flags(argv)
    with pytest.raises(UserError, match="no command"):
        doc_pages.check_flags(["tarin"])


def test_an_unknown_block_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="rust"), doc_pages.Pages(tmp_path) as transcript:
        transcript.filled("# A page\n\n```rust\nfn main() {}\n```\n")


def test_the_help_page_is_what_the_commands_say() -> None:
    assert help_page.written() == help_page.PAGE.read_text(encoding="utf-8"), "run docs/build/help_page.py"


def test_the_pictures_are_those_of_the_results() -> None:
    for name, drawn in pictures.drawn().items():
        assert drawn == (pictures.IMAGES / name).read_text(encoding="utf-8"), f"{name}: run docs/build/pictures.py"


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    assert [name for name in NAMES if name not in nav] == []
