"""Passages: long documents are cut at headings and sentences, and nothing of them is lost."""

from hypothesis import given, settings
from hypothesis import strategies as st

from freemvmt.data.documents import Document, Heading, Outline
from freemvmt.data.passages import BETWEEN, Passage, Splitter, contents_of
from freemvmt.model import TwoTowersModel

WORDS = ("tower", "river", "Stone.", "walls,", "naïve", "東京都", "\n", "\n\n", " ", "a", "👩‍👩‍👧 x!", "unbelievable")


@st.composite
def documents(draw: st.DrawFn) -> Document:
    text = " ".join(draw(st.lists(st.sampled_from(WORDS), max_size=80)))
    starts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
    titles = st.sampled_from(["Setup", "Use of it", "title"])
    headings = tuple(Heading(start, draw(st.integers(1, 3)), draw(titles)) for start in starts)
    pages = tuple(sorted({0, *draw(st.sets(st.integers(0, len(text)), max_size=3))})) if draw(st.booleans()) else ()
    title = draw(st.sampled_from(["", "title", "a long title of many more words than fit"]))
    return Document("d", text, title, {}, Outline(headings, pages))


def headings_at(document: Document, place: int) -> list[str]:
    """The headings above the character ``place``, one by one."""
    above: list[Heading] = []
    for heading in document.outline.headings:
        if heading.start <= place:
            above = [upper for upper in above if upper.level < heading.level] + [heading]
    return [heading.title for heading in above]


@settings(deadline=None, max_examples=150)
@given(document=documents(), tokens=st.integers(12, 40))
def test_every_token_is_read_in_some_passage(tiny_model: TwoTowersModel, document: Document, tokens: int) -> None:
    tokenizer = tiny_model.tokenizer
    passages = Splitter(tokenizer, tokens).split(document)
    assert bool(passages) == (tokenizer.length_of(document.content) > tokens)
    end = 0
    for passage in passages:
        assert document.text[end : passage.start].strip() == ""
        assert passage.start < passage.stop
        assert tokenizer.length_of(passage.content(document)) <= tokens
        piece = document.text[passage.start : passage.stop]
        assert passage.content(document).endswith(piece)
        assert passage.words(document).endswith(piece)
        assert passage.words(document).startswith(document.title)
        above = headings_at(document, passage.start)
        own = passage.trail.split(BETWEEN) if passage.trail else []
        assert own in (above[: len(own)], above[1 : 1 + len(own)])
        if document.outline.pages:
            assert passage.page == sum(page <= passage.start for page in document.outline.pages)
        else:
            assert passage.page is None
        end = passage.stop
    if passages:
        assert document.text[end:].strip() == ""


def test_sections_share_a_passage_while_they_fit_under_one_heading(tiny_model: TwoTowersModel) -> None:
    parts = ["# Guide\n", "## Setup\nOne tower. ", "## Use\nOne river. ", "# Annex\n", "stone " * 40]
    starts = [sum(map(len, parts[:number])) for number in range(len(parts))]
    headings = (
        Heading(starts[0], 1, "Guide"),
        Heading(starts[1], 2, "Setup"),
        Heading(starts[2], 2, "Use"),
        Heading(starts[3], 1, "Annex"),
    )
    document = Document("d", "".join(parts), "Guide", {}, Outline(headings))
    first, *others = Splitter(tiny_model.tokenizer, 24).split(document)
    assert (first.trail, document.text[first.start : first.stop]) == ("", "".join(parts[:3]).strip())
    assert {passage.trail for passage in others} == {"Annex"}
    assert len(others) > 1
    assert others[0].content(document).startswith("Guide Annex # Annex")


def test_a_heading_that_leaves_no_room_is_left_to_bm25(tiny_model: TwoTowersModel) -> None:
    document = Document("d", "stone " * 30, "tower " * 9)
    passages = Splitter(tiny_model.tokenizer, 12).split(document)
    assert not any(passage.headed for passage in passages)
    assert "tower" not in passages[0].content(document)
    assert "tower" in passages[0].words(document)


def test_documents_that_fit_and_text_that_cannot_be_encoded_stay_whole(tiny_model: TwoTowersModel) -> None:
    splitter = Splitter(tiny_model.tokenizer, 5)
    whole = [Document("a", "one tower"), Document("b", "")]
    assert splitter.split_all(whole) == [[], []]
    assert contents_of(whole, [[], [Passage(0, 0)]])[0] == "one tower"
    assert contents_of(whole, []) == ["one tower", ""]
