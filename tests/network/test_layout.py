"""Which columns a `Where` selects, against positions counted one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openwork.errors import BadInput, UnknownName
from openwork.network.layout import Layout
from openwork.site import Where

rows = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6)), min_size=1, max_size=4)


def layout_of(spans: list[tuple[int, int]]) -> Layout:
    width = max(offset + length for offset, length in spans)
    return Layout(tuple(o for o, _ in spans), tuple(n for _, n in spans), width)


@given(rows, st.lists(st.integers(-3, 8), min_size=1, max_size=3), st.sets(st.integers(0, 3)))
def test_positions_of_the_real_tokens(spans: list[tuple[int, int]], positions: list[int], some: set[int]) -> None:
    layout = layout_of(spans)
    chosen = tuple(sorted(r for r in some if r < len(spans)))
    if any(p < -n for p in positions for _, n in (spans[r] for r in chosen)):
        with pytest.raises(BadInput, match="positions within a row"):
            layout.mask(Where(positions=tuple(positions), rows=chosen), layout.width, 0)
        return
    mask = layout.mask(Where(positions=tuple(positions), rows=chosen), layout.width, 0)
    assert mask is not None
    for row, (offset, length) in enumerate(spans):
        real = list(range(offset, offset + length))
        wanted = {real[p] for p in positions if -length <= p < length} if row in chosen else set()
        assert {c for c in range(layout.width) if bool(mask[row, c])} == wanted


def test_everything_needs_no_mask() -> None:
    assert Layout.full(2, 5).mask(Where(), 5, 0) is None


@pytest.mark.parametrize("size", [1, 8])
def test_decoding_steps_count_on_from_the_prompt(size: int) -> None:
    """At step 3 of a prompt of 5 the columns are 8, or with a cache the newest one alone."""
    layout = Layout.full(1, 5)
    columns = list(range(8))[-size:]

    def selected(where: Where) -> list[int]:
        mask = layout.mask(where, size, 3)
        assert mask is not None
        return [c for c, hit in zip(columns, mask[0].tolist(), strict=True) if hit]

    def only(*wanted: int) -> list[int]:
        return [c for c in columns if c in wanted]

    assert selected(Where(positions=(1,))) == only(1)
    assert selected(Where(positions=(-1,))) == only(4, 5, 6, 7)
    assert selected(Where(group="last")) == only(4, 5, 6, 7)
    assert selected(Where(positions=(-2,))) == only(3)
    assert selected(Where(positions=(7,))) == only(7)
    assert selected(Where(steps=(0,))) == only(0, 1, 2, 3, 4)
    assert selected(Where(steps=(3,))) == only(7)
    assert selected(Where(since=2)) == only(6, 7)
    assert selected(Where(positions=(0, 6), since=1)) == only(6)


def test_groups_belong_to_their_rows_and_first_and_last_always_exist() -> None:
    layout = Layout((0, 2), (4, 2), 4, {"name": ((1, 3), (0,))})
    name, first, last = (layout.mask(Where(group=g), 4, 0) for g in ("name", "first", "last"))
    assert name is not None
    assert first is not None
    assert last is not None
    assert name.tolist() == [[False, True, False, True], [False, False, True, False]]
    assert first.tolist() == [[True, False, False, False], [False, False, True, False]]
    assert last.tolist() == [[False, False, False, True], [False, False, False, True]]
    with pytest.raises(UnknownName, match=r"nam.*name"):
        layout.mask(Where(group="nam"), 4, 0)


def test_a_mask_tells_where_the_tokens_lie() -> None:
    layout = Layout.from_mask(torch.tensor([[0, 1, 1], [1, 1, 0], [1, 1, 1]]))
    assert (layout.offsets, layout.lengths, layout.width) == ((1, 0, 0), (2, 2, 3), 3)
    assert layout.padded
    assert not Layout.full(2, 3).padded
    for broken in ([[1, 0, 1]], [[0, 0, 0]]):
        with pytest.raises(BadInput, match="row 0"):
            Layout.from_mask(torch.tensor(broken))


def test_rows_that_do_not_exist() -> None:
    with pytest.raises(BadInput, match="batch of 2"):
        Layout.full(2, 3).mask(Where(rows=(2,)), 3, 0)
