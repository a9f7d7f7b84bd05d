"""HTML: the main content, its headings, and pages that nobody writes by hand."""

import time

import pytest

from freemvmt.data.files.content import UnreadableError
from freemvmt.data.files.html import MAX_DEPTH, read_html

PAGE = """<!doctype html><html><head><title>Pumps — the manual</title><style>p {}</style></head><body>
<nav><a href="/">Home</a></nav><header>Banner</header>
<main><header><h1>Pumps<a class="headerlink" href="#pumps">¶</a></h1></header>
<p>A <b>pump</b>
moves&nbsp;water.<br>Always.</p><script>alert(1)</script>
<h2>Parts</h2><ul><li>seal<li>rotor</ul>
<pre>
  one
    two</pre>
<table><tr><th>part<th>mm<tr><td>seal<td>3</table>
<aside>Advertisement</aside></main><footer>© nobody</footer></body></html>"""


def test_a_page_gives_its_main_content() -> None:
    content = read_html(PAGE.encode())
    assert content.text.split("\n\n") == [
        "Pumps",
        "A pump moves water.\nAlways.",
        "Parts",
        "seal",
        "rotor",
        "  one\n    two",
        "part\tmm",
        "seal\t3",
    ]
    assert content.title == "Pumps"
    assert [(one.level, one.title, content.text[one.start :][:5]) for one in content.outline.headings] == [
        (1, "Pumps", "Pumps"),
        (2, "Parts", "Parts"),
    ]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<body><header>Top</header><nav>n</nav><p>text<footer>end", "Top\n\ntext\n\nend"),
        ("<nav>n</nav><article>one</article><article>two</article>", "one\n\ntwo"),
        ("<main> </main><div role=main></div><p>elsewhere", "elsewhere"),
        ("<div role=main>here</div><p>elsewhere", "here"),
        ("words alone", "words alone"),
        ("<p>a &lt;tag&gt; &#xD800;&amp;", "a <tag> \ufffd&"),
        ("<!-- <p>no</p> --><p>yes", "yes"),
        ("<body><template><p>no</template><noscript>no</noscript>yes", "yes"),
        ("", ""),
    ],
)
def test_other_pages(source: str, text: str) -> None:
    assert read_html(source.encode()).text == text


def test_the_title_is_the_title_element_without_a_heading() -> None:
    assert read_html(b"<title> The\n page </title><h2>x</h2>").title == "The page"
    assert read_html(b"<p>x").title == ""


def test_an_older_encoding_is_read() -> None:
    page = "<meta charset=iso-8859-1><p>" + "Die Straße über den Fluß ist schön. " * 20
    assert read_html(page.encode("latin-1")).text.startswith("Die Straße über den Fluß")


@pytest.mark.parametrize("unit", ["<div>", "<b>", "<ul><li>", "<table><tr><td>", "<DIV\n>", "<svg><g>"])
def test_deep_pages_are_refused_at_once(unit: str) -> None:
    start = time.perf_counter()
    with pytest.raises(UnreadableError, match="nested more than 4,000 deep"):
        read_html(unit.encode() * 100_000 + b"x")
    assert time.perf_counter() - start < 10


def test_a_page_may_be_deep_and_long() -> None:
    assert read_html(b"<div>" * (MAX_DEPTH - 10) + b"x").text == "x"
    page = b"<p>word<li>item<td>cell<br>" * 50_000
    assert read_html(page).text.count("word") == 50_000
