import random

import numpy as np
import pytest

from freemvmt.data.ragged import IdLists, TokenArray, offsets_of


def made(lists: list[list[int]]) -> IdLists:
    flat = [number for one in lists for number in one]
    return IdLists(np.array(flat, np.int32), offsets_of(np.array([len(one) for one in lists], np.int64)))


def plain(array: IdLists) -> list[list[int]]:
    assert array.ids.dtype == np.int32
    assert array.offsets.dtype == np.int64
    assert array.offsets[0] == 0
    assert array.offsets[-1] == len(array.ids)
    return [array[number].tolist() for number in range(len(array))]


def drawn(draw: random.Random) -> list[list[int]]:
    """Up to 12 lists of up to 5 ids, many of them empty."""
    return [
        [draw.randrange(100) for _ in range(draw.choice([0, 0, 1, 2, 5]))] for _ in range(draw.choice([0, 1, 3, 12]))
    ]


@pytest.fixture(params=range(40))
def draw(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.param)


def test_lists_come_out_as_they_went_in(draw: random.Random) -> None:
    lists = drawn(draw)
    assert plain(made(lists)) == lists
    assert made(lists).lengths.tolist() == [len(one) for one in lists]


def test_take_gives_any_lists_in_any_order_with_repeats(draw: random.Random) -> None:
    lists = drawn(draw) or [[]]
    index = [draw.randrange(len(lists)) for _ in range(draw.choice([0, 1, 20]))]
    assert plain(made(lists).take(np.array(index, np.int64))) == [lists[number] for number in index]


def test_slice_gives_a_range_without_copying(draw: random.Random) -> None:
    lists = drawn(draw)
    start = draw.randint(0, len(lists))
    stop = draw.randint(start, len(lists))
    whole = made(lists)
    part = whole.slice(start, stop)
    assert plain(part) == lists[start:stop]
    assert np.shares_memory(part.ids, whole.ids) == bool(len(part.ids))


def test_followed_by_puts_one_behind_the_other(draw: random.Random) -> None:
    first, second = drawn(draw), drawn(draw)
    assert plain(made(first).followed_by(made(second))) == first + second


def test_operations_go_together(draw: random.Random) -> None:
    first, second = drawn(draw), drawn(draw)
    start = draw.randint(0, len(first))
    joined = first[start:] + second
    index = draw.sample(range(len(joined)), len(joined) // 2)
    got = made(first).slice(start, len(first)).followed_by(made(second)).take(np.array(index, np.int64))
    assert plain(got) == [joined[number] for number in index]


def test_from_pairs_groups_by_list_and_keeps_the_order_within(draw: random.Random) -> None:
    count = draw.choice([1, 3, 10])
    pairs = [(draw.randrange(count), draw.randrange(1000)) for _ in range(draw.choice([0, 1, 40]))]
    want: list[list[int]] = [[] for _ in range(count)]
    for which, number in pairs:
        want[which].append(number)
    lists, ids = np.array(pairs, np.int64).reshape(-1, 2).T
    assert plain(IdLists.from_pairs(lists, ids, count)) == want


def test_a_token_array_stays_one() -> None:
    tokens = TokenArray(np.array([1, 2, 3], np.int32), np.array([0, 1, 3], np.int64))
    taken = tokens.take(np.array([1]))
    assert {type(found) for found in (taken, tokens.slice(0, 1), tokens.followed_by(tokens))} == {TokenArray}
