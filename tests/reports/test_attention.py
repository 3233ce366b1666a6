from __future__ import annotations

import numpy as np
import pytest

from openwork.errors import CorruptFile
from openwork.reports.attention import attention_view
from openwork.studies.schema import AttentionExample

EXAMPLE = AttentionExample(site="blocks.0.attn.z[0]", tokens=["a", "\n", "b", "c"], array="x")


def weights() -> np.ndarray:
    pattern = np.zeros((4, 4), dtype=np.float32)
    pattern[0, 0] = pattern[1, 0] = 1
    pattern[2, 1], pattern[2, 2] = 0.3, 0.7
    pattern[3, 0], pattern[3, 1] = 0.4, 0.6
    return pattern


def test_it_shows_what_is_telling_first() -> None:
    view = attention_view(EXAMPLE, {"x": weights()})
    assert view.focus == 3
    assert [(look.query_at, look.key_at) for look in view.strongest] == [(3, 1), (2, 1)]
    assert view.weights == [[100], [100, 0], [0, 30, 70], [40, 60, 0, 0]]
    assert view.shades == [8, 12, 0, 0]


def test_line_breaks_are_visible() -> None:
    view = attention_view(EXAMPLE, {"x": weights()})
    assert view.tokens == ["a", "↵", "b", "c"]
    assert view.breaks == [False, True, False, False]


@pytest.mark.parametrize("arrays", [{}, {"x": np.zeros((4, 3))}])
def test_an_array_that_does_not_fit_is_corrupt(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(CorruptFile, match="'x'"):
        attention_view(EXAMPLE, arrays)
