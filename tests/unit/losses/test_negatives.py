import numpy as np
import torch
from torch.nn import functional as F

from freemvmt.data.ragged import IdLists
from freemvmt.losses.negatives import InBatchNegatives, draw_given_negatives, known_positives


def lists(*rows: list[int]) -> IdLists:
    pairs = [(number, id) for number, row in enumerate(rows) for id in row]
    first, second = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    return IdLists.from_pairs(first, second, len(rows))


def test_known_positives_are_what_a_loop_over_all_pairs_finds() -> None:
    draw = np.random.default_rng(0)
    positives = lists(*[draw.choice(30, draw.integers(1, 5), replace=False).tolist() for _ in range(40)])
    for _ in range(50):
        queries = draw.integers(0, 40, 25)  # repeats of queries and of passages both happen
        passages = np.array([draw.choice(positives[query]) for query in queries], np.int64)
        expected = [
            (row, column)
            for row, query in enumerate(queries)
            for column, passage in enumerate(passages)
            if passage in positives[query]
        ]
        known = known_positives(queries, passages, positives)
        assert sorted(zip(known.rows.tolist(), known.columns.tolist(), strict=True)) == expected
        assert known.rows.tolist() == sorted(known.rows.tolist())
        off = known.others()
        assert set(zip(off.rows.tolist(), off.columns.tolist(), strict=True)) == {(i, j) for i, j in expected if i != j}
        for size in (0, 7, 25):
            near = known.within(size)
            pairs = zip(near.rows.tolist(), near.columns.tolist(), strict=True)
            assert sorted(pairs) == [(i, j) for i, j in expected if j < size]


def test_copies_of_a_passage_stand_in_the_order_of_the_batch() -> None:
    passages = np.random.default_rng(0).integers(0, 3, 300)
    known = known_positives(np.zeros(300, np.int64), passages, lists([0, 1, 2]))
    first = known.columns[known.rows == 0].numpy()
    assert [int(place) for number in (0, 1, 2) for place in np.flatnonzero(passages == number)] == first.tolist()


def test_both_halves_move_to_a_device() -> None:
    known = known_positives(np.array([0]), np.array([5]), lists([5])).to(torch.device("meta"))
    assert {known.rows.device.type, known.columns.device.type} == {"meta"}


def test_given_negatives_are_drawn_from_the_own_row_all_of_them_in_time() -> None:
    negatives = lists([5, 6, 7], [], [8])
    queries = np.array([0, 1, 2, 0])
    draw = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        drawn, place = draw_given_negatives(queries, negatives, draw)
        assert place.tolist() == [0, -1, 1, 2]
        assert drawn[1] == 8
        seen |= {(drawn[0], drawn[2])}
    assert seen == {(one, other) for one in (5, 6, 7) for other in (5, 6, 7)}  # each row draws for itself


def test_where_all_is_kept_nothing_is_copied() -> None:
    known = known_positives(np.array([0, 1]), np.array([5, 6]), lists([5], [6]))
    assert known.within(2) is known
    assert known.within(1) is not known


def test_the_hardest_of_a_batch_of_many_groups_is_that_of_the_whole_matrix() -> None:
    hardest = InBatchNegatives("hardest", torch.float32, 0)
    draw = torch.Generator().manual_seed(0)
    for size in (300, 130):  # the second batch is smaller: nothing of the first may show
        queries, documents = (F.normalize(torch.randn(size, 8, generator=draw)) for _ in range(2))
        passages = np.arange(size) // 2  # each answers two queries
        known = known_positives(np.arange(size), passages, lists(*[[passage] for passage in passages.tolist()]))
        cosines = queries @ documents.T
        cosines[known.rows, known.columns] = -torch.inf
        document_of_query, query_of_document = hardest.choose(queries, documents, known)
        assert document_of_query.tolist() == cosines.argmax(1).tolist()
        assert query_of_document.tolist() == cosines.argmax(0).tolist()
