"""Rows to examples and collections, against a model of a few lines in plain Python."""

import dataclasses
import random

import numpy as np
import pytest

from freemvmt.data.collection import Collection, merge, to_collection
from freemvmt.data.examples import Examples, select, split, to_examples, without_queries
from freemvmt.data.judgements import from_pairs
from freemvmt.data.values import folded, passage_id
from freemvmt.errors import UserError

Row = tuple[str, list[str], list[str]]  # query, passages that answer it, passages that do not
Answers = dict[str, tuple[list[str], list[str]]]  # folded query -> (answers, others)


def examples_of(*rows: Row) -> Examples:
    return to_examples(from_pairs(rows), "here")


def answers_of(examples: Examples) -> Answers:
    """The examples in texts, after a look at their form."""
    assert len(set(examples.passages)) == len(examples.passages)
    used = {*examples.positives.ids.tolist(), *examples.negatives.ids.tolist()}
    assert used == set(range(len(examples.passages)))
    assert len(examples.positives) == len(examples.negatives) == len(examples.queries)
    return {
        folded(query): (
            [examples.passages[passage] for passage in examples.positives[number]],
            [examples.passages[passage] for passage in examples.negatives[number]],
        )
        for number, query in enumerate(examples.queries)
    }


def random_rows(seed: int) -> list[Row]:
    """Rows that share queries (spelled in several ways) and passages, some of them blank."""
    draw = random.Random(seed)
    passages = ["", "  ", *(f"passage {number}" for number in range(draw.choice([3, 12])))]

    def spelled(number: int) -> str:
        return draw.choice(["{} {}", " {}  {}", "{}\t{} "]).format(draw.choice(["Query", "query", "QUERY"]), number)

    return [
        (
            draw.choice([spelled(draw.randrange(6)), " \t"]) if draw.random() < 0.1 else spelled(draw.randrange(6)),
            draw.choices(passages, k=draw.choice([0, 1, 1, 2])),
            draw.choices(passages, k=draw.choice([0, 1, 4])),
        )
        for _ in range(draw.choice([1, 5, 20]))
    ]


def modelled(rows: list[Row]) -> tuple[Answers, int]:
    """(what the rows say, how many of them have no answer), the slow and plain way."""
    found: Answers = {}
    without_answer = 0
    for query, positives, negatives in rows:
        kept = [text for text in positives if text.strip() and query.strip()]
        without_answer += not kept
        answers, others = found.setdefault(folded(query), ([], []))
        answers += [text for text in dict.fromkeys(kept) if text not in answers]
        others += [text for text in dict.fromkeys(negatives) if text.strip() and text not in others]
    for answers, others in found.values():
        others[:] = [text for text in others if text not in answers]
    return {query: pair for query, pair in found.items() if query and pair[0]}, without_answer


@pytest.mark.parametrize("seed", range(60))
def test_examples_say_what_the_rows_say(seed: int, log: pytest.LogCaptureFixture) -> None:
    rows = random_rows(seed)
    wanted, without_answer = modelled(rows)
    if not wanted:
        with pytest.raises(UserError, match="here: no row has a passage that answers its query"):
            examples_of(*rows)
        return
    examples = examples_of(*rows)
    assert answers_of(examples) == wanted
    assert list(answers_of(examples)) == list(wanted)  # in order of first appearance
    rows_have = "1 row has" if without_answer == 1 else f"{without_answer} rows have"
    said = [f"here: {rows_have} no passage that answers the query; left out"]
    assert log.messages == said * bool(without_answer)


def test_a_passage_under_two_queries_is_one_passage() -> None:
    examples = examples_of(("a", ["x"], ["y"]), ("b", ["y"], ["x"]))
    assert examples.passages == ["x", "y"]
    assert answers_of(examples) == {"a": (["x"], ["y"]), "b": (["y"], ["x"])}


def test_an_answer_in_one_row_is_no_negative_of_that_query_in_another() -> None:
    rows: list[Row] = [("a", ["x"], []), ("a", ["y"], ["x"])]
    assert answers_of(examples_of(*rows)) == {"a": (["x", "y"], [])}
    assert answers_of(examples_of(*rows[::-1])) == {"a": (["y", "x"], [])}


def test_case_and_spacing_make_no_other_query_and_the_first_spelling_stays() -> None:
    examples = examples_of((" What  is\tthis ", ["x"], []), ("what is this", ["y"], []), ("WHAT IS THIS", ["x"], []))
    assert examples.queries == ["What  is\tthis"]
    assert answers_of(examples) == {"what is this": (["x", "y"], [])}


def test_pairs_are_every_query_with_each_of_its_answers() -> None:
    queries, passages = examples_of(("a", ["x", "y"], ["n"]), ("b", ["y"], [])).pairs()
    assert (queries.tolist(), passages.tolist()) == ([0, 0, 1], [0, 1, 1])


@pytest.mark.parametrize("seed", range(10))
def test_a_selection_keeps_its_queries_and_only_the_passages_they_name(seed: int) -> None:
    examples = examples_of(("sure", ["x"], []), *random_rows(seed))
    order = np.random.default_rng(seed).permutation(len(examples.queries))[: 1 + len(examples.queries) // 2]
    chosen = select(examples, order)
    assert chosen.queries == [examples.queries[number] for number in order]
    assert answers_of(chosen) == {folded(query): answers_of(examples)[folded(query)] for query in chosen.queries}


def test_queries_are_left_out_in_any_case_and_spacing() -> None:
    examples = examples_of(("How far", ["x"], ["y"]), ("how near", ["y"], []))
    assert answers_of(without_queries(examples, ["  how   FAR "])) == {"how near": (["y"], [])}
    assert answers_of(without_queries(examples, ["how"])) == answers_of(examples)


def numbered(count: int) -> Examples:
    return examples_of(
        *((f"query {number}", [f"passage {number}"], [f"other {number % 7}"]) for number in range(count))
    )


def test_a_split_shares_no_query_and_loses_none() -> None:
    examples = numbered(100)
    train, held = split(examples, 0.2, 1000, seed=3)
    assert len(held.queries) == 20
    assert not {*map(folded, train.queries)} & {*map(folded, held.queries)}
    assert answers_of(train) | answers_of(held) == answers_of(examples)


def test_one_seed_gives_one_split_and_another_seed_another() -> None:
    first, again, other = (split(numbered(100), 0.2, 1000, seed)[1].queries for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_a_split_holds_out_no_more_than_it_may() -> None:
    assert len(split(numbered(100), 0.2, 5, seed=0)[1].queries) == 5


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.5), (4, 0.1), (2, 0.9)])
def test_too_few_queries_to_hold_some_out_is_an_error(count: int, fraction: float) -> None:
    queries_are = "1 query is" if count == 1 else f"{count} queries are"
    with pytest.raises(UserError, match=f"{queries_are} too few to hold some out; give more rows"):
        split(numbered(count), fraction, 1000, seed=0)


def test_a_collection_holds_the_corpus_and_for_each_query_its_answers_and_its_pool() -> None:
    held = examples_of(("a", ["x", "y"], ["n"]), ("b", ["n"], ["x"]))
    collection = to_collection(held, "held out", ["x", "elsewhere", "x"])
    assert sorted(collection.documents) == ["elsewhere", "n", "x", "y"]
    assert collection.document_ids == [passage_id(text) for text in collection.documents]
    x, y, n = (passage_id(text) for text in "xyn")
    first, second = collection.query_ids
    assert collection.queries == ["a", "b"]
    assert collection.qrels == {first: {x: 1, y: 1}, second: {n: 1}}
    assert {query: sorted(pool) for query, pool in collection.pools.items()} == {
        first: sorted([x, y, n]),
        second: sorted([n, x]),
    }


def small() -> Collection:
    return Collection(
        "c", ["d1", "d2"], ["one", "two"], ["q1", "q2"], ["first", "second"], {"q1": {"d1": 1}, "q2": {"d2": 2}}
    )


def test_a_fingerprint_does_not_depend_on_name_and_order_of_judgements() -> None:
    turned = dataclasses.replace(small(), name="other", qrels={"q2": {"d2": 2}, "q1": {"d1": 1}})
    assert turned.fingerprint() == small().fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"documents": ["one", "twо"]},
        {"documents": ["two", "one"]},
        {"documents": ["on", "etwo"]},
        {"document_ids": ["d1", "d3"]},
        {"queries": ["first", "Second"]},
        {"query_ids": ["q2", "q1"]},
        {"qrels": {"q1": {"d1": 1}, "q2": {"d2": 1}}},
        {"qrels": {"q1": {"d1": 1}, "q2": {"d1": 2}}},
        {"qrels": {"q1": {"d1": 1}, "q2": {"d2": 2, "d1": 0}}},
    ],
    ids=str,
)
def test_a_fingerprint_changes_with_any_text_and_any_judgement(change: dict[str, object]) -> None:
    assert dataclasses.replace(small(), **change).fingerprint() != small().fingerprint()  # type: ignore[arg-type]


def test_one_collection_merges_into_itself() -> None:
    collection = small()
    assert merge([collection]) is collection


def test_merged_collections_hold_all_documents_once_and_all_queries() -> None:
    first = to_collection(examples_of(("a", ["x"], ["n"])), "first")
    second = to_collection(examples_of(("a", ["y"], ["x"]), ("b", ["x"], [])), "second")
    both = merge([first, second])
    assert both.name == "first + second"
    assert sorted(both.documents) == ["n", "x", "y"]
    assert both.queries == ["a", "a", "b"]
    assert len(set(both.query_ids)) == 3
    texts = dict(zip(both.document_ids, both.documents, strict=True))
    assert [[texts[document] for document in both.qrels[query]] for query in both.query_ids] == [["x"], ["y"], ["x"]]
    assert [[texts[document] for document in both.pools[query]] for query in both.query_ids] == [
        ["x", "n"],
        ["y", "x"],
        ["x"],
    ]


def test_merged_collections_may_call_different_documents_by_one_id() -> None:
    other = dataclasses.replace(small(), documents=["uno", "two"], pools={"q1": ["d1", "d2"], "q2": ["d2"]})
    both = merge([small(), other])
    texts = dict(zip(both.document_ids, both.documents, strict=True))
    assert sorted(texts.values()) == ["one", "two", "uno"]
    named = [{texts[document]: grade for document, grade in both.qrels[query].items()} for query in both.query_ids]
    assert named == [{"one": 1}, {"two": 2}, {"uno": 1}, {"two": 2}]
    assert [[texts[document] for document in both.pools[query]] for query in both.query_ids[2:]] == [
        ["uno", "two"],
        ["two"],
    ]
