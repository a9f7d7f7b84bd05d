"""Filters on metadata, against Python's own comparisons over random documents, and every filter that is refused."""

import random
from typing import Any

import numpy as np
import pytest

from freemvmt.errors import UserError
from freemvmt.search.stores.columns import Columns
from freemvmt.search.stores.filters import (
    FieldKind,
    check,
    count_ignored,
    ignored_note,
    ignored_type,
    kind_of,
    kinds_of,
    members_of,
    merge_spellings,
    parse_filters,
)

from bundles import make_filter, make_metadata, matches

KINDS: dict[str, FieldKind] = {
    "source": "string",
    "year": "number",
    "size": "number",
    "score": "number",
    "either": "number",
    "flag": "boolean",
    "tags": "string",
    "sizes": "number",
    "flags": "boolean",
}


@pytest.mark.parametrize("seed", range(4))
def test_filters_keep_what_a_loop_in_python_keeps(seed: int) -> None:
    draw = random.Random(seed)
    metadata = [make_metadata(draw) for _ in range(300)]
    kinds: dict[str, FieldKind] = {}
    for number, item in enumerate(metadata):
        kinds |= kinds_of(item, kinds, f"{number}")
    assert kinds == KINDS
    columns = Columns.of(metadata, kinds)
    kept = 0
    for _ in range(500):
        conditions = make_filter(draw)
        expected = [matches(item, conditions) for item in metadata]
        assert columns.mask(check(conditions, kinds)).tolist() == expected, conditions
        kept += any(expected) and not all(expected)
    assert kept > 100


NUMBERS = [-(2**53), -(2**53) + 1, -1, 0, 1, 2**53 - 1, 2**53]
BEYOND = [-(2**63), -(2**53) - 1, 2**53 + 1, 2**53 + 2, 2**63, 10**30]
FRACTIONS = [-1e300, -(2.0**63), -(2.0**53), -0.5, -0.0, 5e-324, 0.1, 1.0, 2.0**53, 2.0**53 + 2, 2.0**63, 1e300]


@pytest.mark.parametrize("values", [NUMBERS, FRACTIONS, [*NUMBERS, *BEYOND, *FRACTIONS]], ids=len)
def test_numbers_compare_as_pythons_do_and_whole_ones_beyond_a_float_are_not_seen(values: list[float]) -> None:
    """2**53 + 1 is not 2.0**53: in a document it meets no condition, and in a filter it is refused."""
    metadata = [{"n": value} for value in [*values, None]]
    columns = Columns.of(metadata, {"n": "number"})
    for bound in [*NUMBERS, *FRACTIONS]:
        for condition in (bound, [bound, 1], *({sign: bound} for sign in ("gte", "gt", "lte", "lt"))):
            expected = [matches(item, {"n": condition}) for item in metadata]
            assert columns.mask(check({"n": condition}, {"n": "number"})).tolist() == expected, condition
    for bound in BEYOND:
        for condition in (bound, [1, bound], {"gte": bound}, {"lt": bound}):
            with pytest.raises(UserError, match=r"a whole number beyond 2\*\*53; give a smaller one"):
                check({"n": condition}, {"n": "number"})


def test_a_field_has_one_kind() -> None:
    assert [kind_of(value) for value in ("", True, 1, 1.5, None, [], {}, 2**53 + 1, -(2**53) - 1, -(2**53))] == [
        "string",
        "boolean",
        "number",
        "number",
        *[None] * 5,
        "number",
    ]
    known: dict[str, FieldKind] = {"year": "number"}
    assert kinds_of({"year": 1.5, "a": "x", "b": None, "c": [1, {}]}, known, "here") == {"a": "string"}
    for value in ("1990", True, ["1990"], [True]):
        with pytest.raises(UserError, match=r'^here: the field "year" is a number .* keep to one kind a field$'):
            kinds_of({"year": value}, known, "here")


def test_columns_without_a_field_or_a_row() -> None:
    assert Columns.of([{}, {}], {}).mask({}).tolist() == [True, True]
    empty = Columns.of([], KINDS)
    assert empty.mask({"source": "a", "year": {"gt": 1}, "flag": [True]}).tolist() == []
    assert Columns.of([{"source": "a"}], {}).mask({"source": "a"}).tolist() == [False]  # known elsewhere only


REFUSED = {
    "a list": ([1], "a filter is an object"),
    "a word": ("source=debian", "a filter is an object"),
    "nothing": (None, "a filter is an object"),
    "unknown": ({"sauce": "x"}, "no field 'sauce' .* the fields are: either, flag, flags, score, .*, year"),
    "kept only": ({"nested": "a"}, "no field 'nested'"),
    "no name": ({"": 1}, "no field ''"),
    "a number as name": ({1: 1}, "no field '1'"),
    "null": ({"year": None}, "number"),
    "text for a number": ({"year": "1990"}, '"year" is a number'),
    "truth for a number": ({"year": True}, '"year" is a number'),
    "a number for text": ({"source": 1}, '"source" is a string'),
    "a number for truth": ({"flag": 1}, '"flag" is a boolean'),
    "vast": ({"year": 2**53 + 1}, r"beyond 2\*\*53"),
    "vast in a range": ({"year": {"lt": -(2**53) - 1}}, r"beyond 2\*\*53"),
    "no number": ({"year": float("nan")}, "no number to compare with"),
    "without end": ({"year": {"lt": float("inf")}}, "no number to compare with"),
    "no range": ({"year": {}}, "gte, gt, lte, lt"),
    "another range": ({"year": {"gte": 1, "from": 2}}, "gte, gt, lte, lt"),
    "range of truth": ({"flag": {"gte": True}}, "no order"),
    "range of lists": ({"year": {"gte": [1]}}, '"year" is a number'),
    "range of null": ({"year": {"gte": None}}, '"year" is a number'),
    "any of none": ({"source": []}, "lists 0 values"),
    "any of too many": ({"source": ["a"] * 1001}, "lists 1001 values"),
    "any of mixed": ({"source": ["a", 1]}, '"source" is a string'),
    "any of lists": ({"source": [["a"]]}, '"source" is a string'),
    "half a pair": ({"source": "a\ud800"}, "surrogate"),
    "half a pair in a name": ({"a\ud800": "a"}, "no field"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_filter_is_refused_in_one_line(case: str) -> None:
    conditions, what = REFUSED[case]
    with pytest.raises(UserError, match=what) as refused:
        check(conditions, KINDS)
    assert "; " in str(refused.value)
    assert "\n" not in str(refused.value)
    str(refused.value).encode()


def test_flags_become_filters() -> None:
    assert parse_filters([], KINDS) == {}
    assert parse_filters(["source=debian"], KINDS) == {"source": "debian"}
    assert parse_filters(["source=1990", "year=1990", "score=-1.5e3", "flag=true"], KINDS) == {
        "source": "1990",
        "year": 1990,
        "score": -1500.0,
        "flag": True,
    }
    assert parse_filters(['source=["a", "b"]', "year=[1990, 1991]"], KINDS) == {
        "source": ["a", "b"],
        "year": [1990, 1991],
    }
    assert parse_filters(["year>=1990", "year<2000", "score>0.5", "size<=7"], KINDS) == {
        "year": {"gte": 1990, "lt": 2000},
        "score": {"gt": 0.5},
        "size": {"lte": 7},
    }
    assert parse_filters(["source=a=b>c"], KINDS) == {"source": "a=b>c"}
    assert parse_filters(["source="], KINDS) == {"source": ""}
    assert parse_filters(["source=null"], KINDS) == {"source": "null"}
    assert parse_filters(['source="quoted"'], KINDS) == {"source": "quoted"}
    assert parse_filters(["source=été\n"], KINDS) == {"source": "été\n"}


WRONG_FLAGS = {
    "no sign": (["year"], "is not understood; write field=value"),
    "no field": (["=1990"], "is not understood"),
    "nothing": ([""], "is not understood"),
    "a value and a range": (["year=1990", "year>=1980"], '"year" twice; give one value'),
    "a range and a value": (["year>=1980", "year=1990"], '"year" twice; give one value'),
    "two values": (["source=a", "source=b"], '"source" twice; .*source=\\["a", "b"\\]'),
    "two bounds": (["year>1980", "year>1990"], '"year" twice'),
    "deep": (["year=" + "[" * 100_000], '"year" is a number'),
    "a word for a number": (["year=soon"], '"year" is a number'),
    "a number without end": (["year=Infinity"], "no number"),
    "a number too long": (["year=" + "9" * 5000], "number"),
}


@pytest.mark.parametrize("case", WRONG_FLAGS)
def test_a_wrong_flag_is_refused_in_one_line(case: str) -> None:
    given, what = WRONG_FLAGS[case]
    with pytest.raises(UserError, match=what) as refused:
        check(parse_filters(given, KINDS), KINDS)
    assert "; " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_counts_are_of_strings_and_of_what_is_asked() -> None:
    columns = Columns.of([{"source": "a"}, {"source": "b"}, {"source": "a"}, {}, {"source": None}], KINDS)
    assert columns.counts("source", np.ones(5, np.bool_)) == {"a": 2, "b": 1}
    assert columns.counts("source", np.array([False, True, True, True, True])) == {"a": 1, "b": 1}
    assert columns.counts("year", np.ones(5, np.bool_)) == {}
    assert columns.counts("nothing", np.ones(5, np.bool_)) == {}


SEEN = {
    "a text": ("fruit", ["fruit"], None),
    "a list": (["fruit", "green"], ["fruit", "green"], None),
    "a tuple": (("fruit",), ["fruit"], None),
    "one text twice": (["Fruit", "green", "fruit", "\uff26ruit"], ["Fruit", "green"], None),
    "numbers of two sorts": ([2020, 2020.0, 0.5], [2020, 0.5], None),
    "truths": ([True, False, True], [True, False], None),
    "null within": ([None, "fruit"], ["fruit"], None),
    "null": (None, [], None),
    "an empty list": ([], [], None),
    "a list of null": ([None], [], None),
    "an empty text": ("", [""], None),
    "an object": ({"a": 1}, [], "objects"),
    "objects": (["a", {"a": 1}], [], "lists of objects"),
    "lists": ([["a"]], [], "lists of lists"),
    "text and number": (["a", 1], [], "mixed lists"),
    "number and truth": ([1, True], [], "mixed lists"),
    "vast": (2**53 + 1, [], "whole numbers beyond 2**53"),
    "vast within": ([1, -(2**53) - 1], [], "lists with whole numbers beyond 2**53"),
}


@pytest.mark.parametrize("case", SEEN)
def test_what_a_filter_sees_and_what_it_does_not(case: str) -> None:
    value, members, unseen = SEEN[case]
    assert members_of(value) == members
    assert ignored_type(value) == unseen
    assert count_ignored([{"a": value, "b": 1}] * 2) == ({} if unseen is None else {"a": {unseen: 2}})


def test_what_is_not_seen_is_said_in_one_line() -> None:
    unseen = count_ignored([{"tags": {"a": 1}}, {"tags": [{}], "size": 10**30}, {"tags": {"b": 1}}, {"tags": "a"}])
    assert unseen == {"tags": {"objects": 2, "lists of objects": 1}, "size": {"whole numbers beyond 2**53": 1}}
    assert ignored_note(unseen) == (
        'filters do not see 2 values of "tags" (objects), 1 value of "tags" (lists of objects), '
        '1 value of "size" (whole numbers beyond 2**53)'
    )
    assert ignored_note({}) == ""
    many = ignored_note({f"f{number}": {"objects": 1} for number in range(9)})
    assert many.endswith('1 value of "f4" (objects), and of 4 more')


LISTED: list[dict[str, Any]] = [
    {"tag": "fruit", "n": 5, "day": "2019-12-31", "ok": True},
    {
        "tag": ["Fruit", "green", "fruit"],
        "n": [1, 9],
        "day": ["2020-01-01T08:00:00", "2021-05-05"],
        "ok": [False, True],
    },
    {"tag": [], "n": [], "day": None, "ok": []},
    {"tag": "ＦＲＵＩＴ", "n": [0.5], "day": "2020-02-30", "ok": False},
    {"tag": [["fruit"]], "n": {"n": 5}, "day": "2020"},
]


@pytest.mark.parametrize(
    ("conditions", "kept"),
    [
        ({"tag": "fruit"}, [0, 1, 3]),
        ({"tag": "FRUIT"}, [0, 1, 3]),
        ({"tag": ["green", "blue"]}, [1]),
        ({"tag": {"gte": "G"}}, [1]),
        ({"tag": {"gt": "fruit", "lt": "green"}}, []),
        ({"n": 9}, [1]),
        ({"n": {"gte": 4, "lt": 8}}, [0]),
        ({"n": {"lt": 4}}, [1, 3]),
        ({"n": [9.0, 5]}, [0, 1]),
        ({"day": {"gte": "2020-01-01"}}, [1, 3]),
        ({"day": {"gte": "2020", "lt": "2021"}}, [1, 3, 4]),
        ({"day": "2020-01-01T08:00:00"}, [1]),
        ({"day": "2020-01-01t08:00:00"}, [1]),
        ({"ok": True}, [0, 1]),
        ({"ok": [True, False]}, [0, 1, 3]),
        ({"tag": "fruit", "ok": False}, [1, 3]),
    ],
)
def test_a_list_is_met_by_one_of_its_members(conditions: dict[str, Any], kept: list[int]) -> None:
    kinds: dict[str, FieldKind] = {"tag": "string", "n": "number", "day": "string", "ok": "boolean"}
    columns = Columns.of(LISTED, kinds)
    assert np.flatnonzero(columns.mask(check(conditions, kinds))).tolist() == kept


def test_counts_are_of_documents_under_the_most_frequent_spelling() -> None:
    columns = Columns.of([*LISTED, {"tag": "Fruit"}], {"tag": "string"})
    assert columns.counts("tag", np.ones(6, np.bool_)) == {"fruit": 1, "Fruit": 2, "green": 1, "ＦＲＵＩＴ": 1}
    assert columns.counts("tag", np.array([False, True, True, True, True, False])) == {
        "Fruit": 1,
        "green": 1,
        "ＦＲＵＩＴ": 1,
    }
    assert merge_spellings({"fruit": 1, "Fruit": 2, "green": 1, "ＦＲＵＩＴ": 1}) == {"Fruit": 4, "green": 1}
    assert merge_spellings({"b": 1, "B": 1}) == {"B": 2}  # of two as frequent the first by its characters
