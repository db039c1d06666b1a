from hypothesis import given
from hypothesis import strategies as st

from freehold.adapt.training import batches

_ROWS = st.lists(
    st.lists(st.integers(0, 1), min_size=2, max_size=12).map(tuple), min_size=1, max_size=12
)


@given(sizes=st.lists(st.integers(1, 500), min_size=1, max_size=60), most=st.integers(1, 2000))
def test_each_epoch_trains_every_example_once(sizes: list[int], most: int) -> None:
    for epoch in range(2):
        made = batches.steps(sizes, most, 3, epoch)
        assert sorted(i for step in made for i in step) == list(range(len(sizes)))
        assert all(made)


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    first = batches.order(50, 1, 0)
    assert batches.order(50, 1, 0) == first
    assert batches.order(50, 1, 1) != first
    assert batches.order(50, 2, 0) != first


@given(rows=_ROWS, most=st.integers(1, 60))
def test_parts_share_only_what_all_their_rows_begin_with_and_nobody_learns(
    rows: list[tuple[int, ...]], most: int
) -> None:
    firsts = [max(1, len(row) // 2) for row in rows]
    made = batches.parts(rows, firsts, [[i] for i in range(len(rows))], most)
    assert sorted(i for part in made for i in part.rows) == list(range(len(rows)))
    for part in made:
        assert len({rows[i][: part.shared] for i in part.rows}) == 1
        assert all(part.shared < firsts[i] for i in part.rows)
        assert part.longest == max(len(rows[i]) for i in part.rows)
        assert part.tokens <= most or len(part.rows) == 1


def test_what_belongs_together_stays_in_one_part_in_its_order() -> None:
    rows = [(1, 2, 3), (1, 2, 4, 5), (1, 9, 9), (1, 9, 8)]
    made = batches.parts(rows, [2, 2, 2, 2], [[0, 1], [2, 3]], 1)
    assert sorted(part.rows for part in made) == [(0, 1), (2, 3)]


def test_a_prompt_that_all_begin_with_is_computed_once() -> None:
    prompt = tuple(range(40))
    rows = [(*prompt, 100 + i, 7) for i in range(10)]
    (part,) = batches.parts(rows, [41] * 10, [[i] for i in range(10)], 1000)
    assert (part.shared, part.tokens) == (40, 60)
