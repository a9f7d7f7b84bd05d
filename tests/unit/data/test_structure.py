import json
from pathlib import Path

import pytest

from freemvmt.config import DataConfig
from freemvmt.data.documents import Document, Heading, Outline
from freemvmt.data.load import load
from freemvmt.data.structure import Section, pairs_of, sections_of, structure_of
from freemvmt.errors import UserError

BODY = "Water boils at one hundred degrees. It does so earlier on a mountain, where the air is thin."
REST = "It does so earlier on a mountain, where the air is thin."


def outlined(text: str, title: str = "") -> Document:
    """A document whose headings are its lines that begin with #."""
    headings, start = [], 0
    for line in text.splitlines(keepends=True):
        marks = len(line) - len(line.lstrip("#"))
        if marks:
            headings.append(Heading(start, marks, line.strip("# \n")))
        start += len(line)
    return Document("d", text, title, outline=Outline(tuple(headings)))


def test_a_section_has_the_titles_above_it_and_not_its_own_heading() -> None:
    text = f"before\n# Pots\n{BODY}\n## Lids\n### Glass\nclear\n## Handles\nhot\n# Pans\nflat\n"
    assert list(sections_of(outlined(text, "Kitchen"))) == [
        Section(("Kitchen",), "before"),
        Section(("Kitchen", "Pots"), BODY),
        Section(("Kitchen", "Pots", "Lids", "Glass"), "clear"),
        Section(("Kitchen", "Pots", "Handles"), "hot"),
        Section(("Kitchen", "Pans"), "flat"),
    ]


def test_the_title_that_is_the_first_heading_stands_once() -> None:
    assert list(sections_of(outlined("# Pots\nround\n## Lids\nflat\n", "Pots"))) == [
        Section(("Pots",), "round"),
        Section(("Pots", "Lids"), "flat"),
    ]


def test_a_rule_below_a_heading_is_none_of_its_text() -> None:
    document = Document("d", "Pots\n====\n\nround ones\n", outline=Outline((Heading(0, 1, "Pots"),)))
    assert list(sections_of(document)) == [Section(("Pots",), "round ones")]


def test_a_document_without_headings_is_one_section() -> None:
    assert list(sections_of(Document("d", f" {BODY}\n", "Boiling"))) == [Section(("Boiling",), BODY)]
    assert list(sections_of(Document("d", "text"))) == [Section((), "text")]
    assert list(sections_of(Document("d", " \n", "Boiling"))) == []


def test_pairs_of_a_section() -> None:
    assert list(pairs_of(Section(("Kitchen", "Pots"), BODY))) == [
        ("Kitchen Pots", BODY),
        ("Water boils at one hundred degrees.", REST),
    ]
    assert list(pairs_of(Section((), BODY))) == [("Water boils at one hundred degrees.", REST)]
    assert list(pairs_of(Section(("Pots",), "too short to answer"))) == []
    assert list(pairs_of(Section((), "one sentence of many words that has no end at all"))) == []
    assert list(pairs_of(Section((), f"No. {REST}"))) == []  # an abbreviation is no query


def corpus(count: int) -> list[Document]:
    return [
        Document(str(n), f"Sentence {n} speaks of thing {n}. The thing {n} has many sides, and here they are.", f"T{n}")
        for n in range(count)
    ]


def test_nothing_of_a_held_out_section_is_trained_on() -> None:
    structure = structure_of(corpus(200), "things", 0, 0.2, 1000)
    validation = structure.validation
    assert validation is not None
    assert 20 < len(validation.queries) < 60
    assert len(validation.documents) == 200
    texts = dict(zip(validation.document_ids, validation.documents, strict=True))
    held_out = {texts[id] for query in validation.query_ids for id in validation.qrels[query]}
    trained = set(structure.pairs.passages.dictionary.to_pylist())
    assert not held_out & trained
    assert not any(text.endswith(passage) for text in held_out for passage in trained)
    assert not held_out & set(structure.sections)
    again = structure_of(reversed(corpus(200)), "things", 0, 0.2, 1000).validation
    assert again is not None
    assert set(again.queries) == set(validation.queries)  # by the text, not by the place
    other = structure_of(corpus(200), "things", 1, 0.2, 1000).validation
    assert other is not None
    assert set(other.queries) != set(validation.queries)


def test_few_are_held_out_where_few_are_asked_for() -> None:
    validation = structure_of(corpus(400), "things", 0, 0.5, 20).validation
    assert validation is not None
    assert len(validation.queries) == 20


@pytest.mark.parametrize(("documents", "held_out"), [(400, 40), (100, 20), (40, 10), (4, 1)])
def test_a_small_corpus_holds_out_a_larger_share(documents: int, held_out: int) -> None:
    validation = structure_of(corpus(documents), "things", 0, 0.1, 2000).validation
    assert validation is not None
    assert len(validation.queries) == held_out


def test_a_corpus_without_titles_holds_first_sentences_out(tmp_path: Path) -> None:
    lines = [json.dumps({"_id": d.id, "text": d.text}) for d in corpus(100)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    data = load(DataConfig(dataset=(str(tmp_path),), validation_fraction=0.1))
    assert all(query.startswith("Sentence") for query in (*data.train.queries, *data.validation.queries))
    assert not {*data.train.queries} & {*data.validation.queries}


@pytest.mark.parametrize("name", ["corpus.jsonl", "things.jsonl"])
def test_a_corpus_alone_is_a_data_set(tmp_path: Path, name: str) -> None:
    lines = [json.dumps({"_id": d.id, "title": d.title, "text": d.text}) for d in corpus(100)]
    (tmp_path / name).write_text("\n".join(lines))
    path = tmp_path if name == "corpus.jsonl" else tmp_path / name
    data = load(DataConfig(dataset=(str(path),), validation_fraction=0.1))
    assert data.validation.name.endswith("headings")
    assert all(query.startswith("T") for query in data.validation.queries)
    spans = load(DataConfig(dataset=(str(path),), validation_fraction=0.1, spans=2))
    assert {*data.train.queries} < {*spans.train.queries}
    assert spans.validation.queries == data.validation.queries


def test_a_corpus_without_structure_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"text": "a text of one sentence and of more than eight words"}))
    with pytest.raises(UserError, match=r"no title, no heading and no second sentence .* add --spans 4"):
        load(DataConfig(dataset=(str(tmp_path),)))
