"""Markdown: headings, front matter, and what only looks like a heading."""

import pytest

from freemvmt.data.files.content import MAX_TITLE
from freemvmt.data.files.markdown import read_markdown

TEXT = """# The `pump` and its **seal**

Text.

```python
# no heading
```

Second
------

> # quoted

- # in a list

### Third [link](http://x.example) ###
"""


def outline(text: str) -> list[tuple[int, str, str]]:
    """(level, title, line at which it begins) of each heading."""
    content = read_markdown(text.encode())
    assert content.text == text
    return [(one.level, one.title, text[one.start :].split("\n")[0]) for one in content.outline.headings]


def test_headings_are_those_of_commonmark() -> None:
    assert outline(TEXT) == [
        (1, "The pump and its seal", "# The `pump` and its **seal**"),
        (2, "Second", "Second"),
        (3, "Third link", "### Third [link](http://x.example) ###"),
    ]
    assert read_markdown(TEXT.encode()).title == "The pump and its seal"


@pytest.mark.parametrize(
    ("front", "title"),
    [
        ('---\nlayout: page\ntitle: "How to: pump"\n---\n', "How to: pump"),
        ("---\ntitle: Plain words  \n...\n", "Plain words"),
        ("+++\ntitle = 'Quoted'\n+++\n", "Quoted"),
        ("---\nlayout: page\n---\n", "Head"),
        ("---\n---\n", "Head"),
    ],
)
def test_front_matter_gives_the_title_and_no_heading(front: str, title: str) -> None:
    text = f"{front}\n# Head\n"
    content = read_markdown(text.encode())
    assert (content.text, content.title) == (text, title)
    assert outline(text) == [(1, "Head", "# Head")]


def test_without_a_heading_of_level_1_there_is_no_title() -> None:
    assert read_markdown(b"## Second\n").title == ""
    assert read_markdown(b"").text == ""


def test_an_open_front_matter_is_text() -> None:
    assert outline("---\ntitle: x\n\n# Head\n") == [(1, "Head", "# Head")]


def test_a_title_is_bounded() -> None:
    content = read_markdown(b"# " + b"word " * 100_000)
    assert len(content.title) <= MAX_TITLE


@pytest.mark.parametrize("unit", ["> ", "- ", "[", "* a\n ", "<div>", "---\n", "`", "1. "])
def test_what_repeats_without_end_is_read(unit: str) -> None:
    assert read_markdown(unit.encode() * 5_000).text == unit * 5_000
