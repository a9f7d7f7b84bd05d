"""reStructuredText: titles by their adornments, as docutils finds them."""

import docutils.core
import docutils.nodes
import pytest

from freemvmt.data.files.rst import read_rst

TEXT = """\
.. _top:

=============
The *manual*
=============

:author: nobody

First part
==========

A paragraph
of two lines

Smaller: ``code``
-----------------

::

    Not a title
    ===========

.. include:: /etc/passwd

=====  =====
A      B
=====  =====
1      2
=====  =====

----------

Second part
===========

Sub
---

 ==
 Xy
 ==
Deep
~~~~
"""


def by_docutils(text: str) -> list[tuple[int, str]]:
    """(level, title) of each section."""
    settings = {"report_level": 5, "halt_level": 5, "file_insertion_enabled": False, "doctitle_xform": False}
    document = docutils.core.publish_doctree(text, settings_overrides=settings)
    found = []
    for section in document.findall(docutils.nodes.section):
        level, parent = 1, section.parent
        while isinstance(parent, docutils.nodes.section):
            level, parent = level + 1, parent.parent
        found.append((level, " ".join(section[0].astext().split())))
    return found


def by_us(text: str) -> list[tuple[int, str]]:
    content = read_rst(text.encode())
    assert content.text == text
    return [(one.level, one.title.replace("*", "").replace("``", "")) for one in content.outline.headings]


def test_titles_are_those_of_docutils() -> None:
    text = TEXT.replace(" ==\n Xy\n ==\n", "")
    assert by_us(text) == by_docutils(text)
    assert [title for _, title in by_us(text)] == [
        "The manual",
        "First part",
        "Smaller: code",
        "Second part",
        "Sub",
        "Deep",
    ]


def test_a_section_begins_with_its_overline() -> None:
    content = read_rst(TEXT.encode())
    lines = [TEXT[one.start :].split("\n")[0] for one in content.outline.headings[:2]]
    assert lines == ["=============", "First part"]
    assert content.title == "The *manual*"


@pytest.mark.parametrize(
    "text", ["", "====", "a\n=", "\n\n====\n\n", "words\nand more\n========\n", "x" * 200 + "\n====\n"]
)
def test_odd_texts_have_the_titles_of_docutils(text: str) -> None:
    assert [title[:9] for _, title in by_us(text)] == [title[:9] for _, title in by_docutils(text)]


def test_markup_leaves_the_title() -> None:
    assert read_rst(b"The :class:`Pump` |x|\n=====================\n").title == "The Pump x"
