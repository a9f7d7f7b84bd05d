"""Training pairs without labels, from the structure of documents.

The title and the headings above a section stand in for a query whose answer is the section. So does a section's first
sentence, whose answer is the rest of it.
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from freemvmt.data.collection import Collection, to_collection
from freemvmt.data.documents import Document
from freemvmt.data.examples import to_examples
from freemvmt.data.judgements import Judgements, from_pairs
from freemvmt.data.values import passage_id

MIN_WORDS = 8  # of a section, or of what follows its first sentence: fewer words answer nothing
MIN_HELD_OUT = 20  # sections: fewer say little about a model
MIN_SENTENCE, MAX_SENTENCE = 3, 32  # words of a first sentence that can stand in for a query
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+")
_UNDERLINE = re.compile(r"\s*([^\w\s])\1*\s*$")  # the line below a heading of Markdown or reStructuredText


class Section(NamedTuple):
    """A part of a document: the titles above it, from the outermost, and its text without them."""

    trail: tuple[str, ...]
    text: str


def sections_of(document: Document) -> Iterator[Section]:
    """The sections of a document in order; the whole text, below its title, if it has no headings."""
    text, headings = document.text, document.outline.headings
    title = (document.title,) if document.title.strip() else ()
    if before := text[: headings[0].start if headings else len(text)].strip():
        yield Section(title, before)
    levels: list[tuple[int, str]] = []
    stops = (*(heading.start for heading in headings[1:]), len(text))
    for heading, stop in zip(headings, stops, strict=bool(headings)):
        levels = [(level, name) for level, name in levels if level < heading.level] + [(heading.level, heading.title)]
        names = tuple(name for _, name in levels)
        if body := _without_heading(text[heading.start : stop]):
            yield Section(names if names[:1] == title else title + names, body)


def _without_heading(text: str) -> str:
    """A section without its first line, which is its heading, and without the rule below that."""
    _, _, body = text.partition("\n")
    first, _, rest = body.partition("\n")
    return (rest if _UNDERLINE.fullmatch(first) else body).strip()


def pairs_of(section: Section) -> Iterator[tuple[str, str]]:
    """(query, passage): the trail and the section; its first sentence and the rest."""
    if len(section.text.split()) < MIN_WORDS:
        return
    if section.trail:
        yield " ".join(section.trail), section.text
    end = _END_OF_SENTENCE.search(section.text)
    if end is None:
        return
    sentence, rest = section.text[: end.start()], section.text[end.end() :]
    if MIN_SENTENCE <= len(sentence.split()) <= MAX_SENTENCE and len(rest.split()) >= MIN_WORDS:
        yield " ".join(sentence.split()), rest


class Structure(NamedTuple):
    """What a corpus teaches without labels: training pairs, the sections that they are from, and the validation
    collection, which is None where the corpus has no title and no heading."""

    pairs: Judgements
    sections: list[str]
    validation: Collection | None


def structure_of(documents: Iterable[Document], name: str, seed: int, fraction: float, most: int) -> Structure:
    """The structure of a corpus.

    ``fraction`` of the sections with a trail are held out whole, at most ``most``; of a small corpus ``MIN_HELD_OUT``
    or a quarter, whichever is fewer. A hash of the text decides, so nothing of a section is trained on that the
    validation asks for. The trails of these sections are the queries of the validation, and the texts of all sections
    its corpus.
    """
    sections = [section for document in documents for section in sections_of(document)]
    queries = {
        section.text: query
        for section in sections
        if section.trail
        for query, _ in itertools.islice(pairs_of(section), 1)
    }
    count = min(most, max(round(fraction * len(queries)), min(MIN_HELD_OUT, len(queries) // 4)))
    drawn = set(sorted(queries, key=lambda text: passage_id(f"{seed}\0{text}"))[:count])
    asked = {text: query for text, query in queries.items() if text in drawn}
    training = [section for section in sections if section.text not in asked]
    pairs = from_pairs((query, [passage], []) for section in training for query, passage in pairs_of(section))
    texts = list(dict.fromkeys(section.text for section in training))
    if not asked:
        return Structure(pairs, texts, None)
    held_out = from_pairs((query, [text], []) for text, query in asked.items())
    examples = to_examples(held_out, f"{name} headings", as_judged=True)
    corpus = list(dict.fromkeys(section.text for section in sections if len(section.text.split()) >= MIN_WORDS))
    return Structure(pairs, texts, to_collection(examples, f"{name} headings", corpus))
