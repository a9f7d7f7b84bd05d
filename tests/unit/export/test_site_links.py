"""Links from a site to the original pages: what a template makes, and which templates are refused."""

import re

import pytest

from freemvmt.data.documents import Document
from freemvmt.data.passages import Passage
from freemvmt.errors import UserError
from freemvmt.export.site.links import LinkTemplate, slug

GUIDE = Document("how-to/a b.md", "text", "Ways & means", {"path": "how-to/a b.md", "year": 1900, "kind": "md"})
INDEX = Document("1", "text", "", {"path": "how-to/index.md"})
BARE = Document("2", "text")
SETUP = Passage(0, 4, "Setup › Linux (or `BSD`)", 3)
TOP = Passage(0, 4)


@pytest.mark.parametrize(
    ("template", "document", "passage", "link"),
    [
        ("https://x.org/{path}#{anchor}", GUIDE, SETUP, "https://x.org/how-to/a%20b.md#linux-or-bsd"),
        ("https://x.org/{path}#{anchor}", GUIDE, TOP, "https://x.org/how-to/a%20b.md"),
        ("https://x.org/{path}#{anchor}", GUIDE, None, "https://x.org/how-to/a%20b.md"),
        ("https://x.org/{path}#{anchor}", BARE, None, None),
        ("HTTP://x.org/{stem}.html#page={page}", GUIDE, SETUP, "HTTP://x.org/how-to/a%20b.html#page=3"),
        ("/{stem}/#{anchor}", GUIDE, SETUP, "/how-to/a%20b/#linux-or-bsd"),
        ("/{stem}/", INDEX, None, "/how-to/"),
        ("{stem}/", Document("3", "", "", {"path": "README.md"}), SETUP, "./"),
        ("../{stem}.html", INDEX, None, "../how-to/index.html"),
        ("?doc={id}&title={title}&kind={kind}", GUIDE, None, "?doc=how-to/a%20b.md&title=Ways%20%26%20means&kind=md"),
        ("?title={title}", INDEX, None, None),
        ("{path}", Document("3", "", "", {"path": "javascript:alert(1)"}), None, "javascript%3Aalert%281%29"),
        ("{path}", Document("3", "", "", {"path": "//evil.org/\\x"}), None, "evil.org/%5Cx"),
        ("/{path}", Document("3", "", "", {"path": "/evil.org?a#b"}), None, "/evil.org%3Fa%23b"),
        ("https://x.org", GUIDE, SETUP, "https://x.org"),
    ],
)
def test_a_hit_has_the_address_of_its_original(
    template: str, document: Document, passage: Passage | None, link: str | None
) -> None:
    assert LinkTemplate(template, [GUIDE, INDEX, BARE]).link(document, passage) == link


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("What is read", "what-is-read"),
        ("`--url`: links & more", "-url-links-more"),
        ("Über 東京, 2nd ed.", "über-東京-2nd-ed"),
        ("snake_case  and\ttabs", "snake_case-and-tabs"),
        ("???", ""),
    ],
)
def test_an_anchor_is_what_mkdocs_makes_of_a_heading(heading: str, anchor: str) -> None:
    assert slug(heading) == anchor


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("javascript:alert('{path}')", "neither http"),
        ("JavaScript:{path}", "neither http"),
        ("data:text/html,{path}", "neither http"),
        ("ftp://x.org/{path}", "neither http"),
        ("{kind}:{path}", "neither http"),
        ("https://{kind}.org/{path}", "neither http"),
        ("https://x.org{path}", "neither http"),
        ("https:x.org", "neither http"),
        ("//x.org/{path}", "neither http"),
        ("", "no template"),
        ("#{anchor}", "no template"),
        ("https://x.org/{path", "no template"),
        ("https://x.org/{{path}}", "no template"),
        ("https://x.org/a {path}", "no template"),
        ("java\nscript:{path}", "no template"),
        ("\\\\x.org\\{path}", "no template"),
        (
            "https://x.org/{year}",
            r"names {year}, which no document has; give anchor, id, kind, page, path, stem, title",
        ),
        ("https://x.org/{}", "names {}, which no document has"),
        ("https://x.org/{path}#{Anchor}", "names {Anchor}, which no document has"),
    ],
)
def test_an_unsafe_or_unknown_template_is_refused(template: str, reason: str) -> None:
    with pytest.raises(UserError, match=re.escape(reason)):
        LinkTemplate(template, [GUIDE, INDEX, BARE])


def test_a_stem_needs_paths() -> None:
    with pytest.raises(UserError, match=r"names {stem}, which no document has; give anchor, id, page, title"):
        LinkTemplate("{stem}/", [BARE])
