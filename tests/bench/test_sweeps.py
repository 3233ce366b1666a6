"""The floor of a sweep, against a count token by token of what an edit can change and the metric can see."""

from __future__ import annotations

import pytest

from sweeps_floor import Cost  # pyright: ignore[reportMissingImports]

SHAPE = Cost(layers=3, width=8, vocabulary=20, length=5)
SQUARE = SHAPE.width**2


def counted(block: int, written: set[int], behind_attention: bool = False) -> int:
    """Multiply-adds of one cell: each token of each block is asked what of it changes and whether it still matters."""
    last, total = SHAPE.length - 1, 0
    changed = set() if behind_attention else set(written)
    for number in range(block, SHAPE.layers):
        final = number == SHAPE.layers - 1
        wanted = {last} if final else set(range(SHAPE.length))
        if behind_attention and number == block:
            out = written & wanted
            total += 9 * SQUARE * len(out)
            changed = out
            continue
        out = {t for t in range(SHAPE.length) if any(s <= t for s in changed)} & wanted
        for token in range(SHAPE.length):
            if token in changed and out:
                total += 2 * SQUARE  # key and value
            if token in out:
                total += SQUARE * (token in changed)  # query
                total += 9 * SQUARE  # output projection and MLP
                total += 2 * (token + 1) * SHAPE.width  # attention
        changed = out
    return total + 2 * SHAPE.width * (last in changed)


@pytest.mark.parametrize("block", range(SHAPE.layers))
@pytest.mark.parametrize("position", range(SHAPE.length))
def test_the_stream(block: int, position: int) -> None:
    assert SHAPE.stream(block, position) == counted(block, {position})


@pytest.mark.parametrize("block", range(SHAPE.layers))
@pytest.mark.parametrize("position", range(SHAPE.length))
def test_a_head_at_one_position(block: int, position: int) -> None:
    assert SHAPE.head(block, position) == counted(block, {position}, behind_attention=True)


@pytest.mark.parametrize("block", range(SHAPE.layers))
def test_a_head_everywhere(block: int) -> None:
    assert SHAPE.head_everywhere(block) == counted(block, set(range(SHAPE.length)), behind_attention=True)


def test_the_figures_of_gpt2_small() -> None:
    shape = Cost(layers=12, width=768, vocabulary=50257, length=16)
    ratios = {kind: shape.sweep(kind, 12) for kind in ("residual", "heads", "heads x positions")}
    assert {kind: round(full / cone, 1) for kind, (cone, full) in ratios.items()} == {
        "residual": 5.9, "heads": 3.2, "heads x positions": 7.0,
    }  # fmt: skip
    two, _ = shape.sweep("residual", 12, changed=(3, 9))
    assert two < ratios["residual"][0]
