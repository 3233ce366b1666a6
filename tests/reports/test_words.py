from __future__ import annotations

import pytest

from openwork.reports.words import component, number, p_value, sentence, tiny, visible


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (0.914, "0.91"), (-1.5, "−1.50"), (0.0049, "0.005"), (-1e-7, "0.00"), (12.34, "12.3"),
     (2_300_000, "2\u2009300\u2009000"), (89, "89"), (None, "–")],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_p_values() -> None:
    assert [tiny(p) for p in (0.0, 3.21e-9, 0.5)] == ["0", "3.2e−09", "0.5"]
    assert [p_value(p) for p in (0.002, 1e-9, None)] == ["p = 0.002", "p < 0.0001", "–"]


@pytest.mark.parametrize(
    ("site", "text"),
    [("blocks.2.attn.z[3]", "L2 H3"), ("blocks.10.mlp.out", "L10 MLP"), ("logits", "logits"), ("embed", "embed")],
)
def test_components(site: str, text: str) -> None:
    assert component(site) == text


def test_text() -> None:
    assert visible("a\n\tb") == "a↵⇥b"
    assert [sentence(text) for text in (" a b", "Done!", "")] == ["A b.", "Done!", ""]
