"""How numbers and names are written for a reader."""

from __future__ import annotations

import re

from openwork.studies.schema import Control, Estimate

VERDICTS: dict[str, tuple[str, str]] = {
    "supported": ("Supported", "✓"),
    "rejected": ("Rejected", "✕"),
    "inconclusive": ("Inconclusive", "?"),
    "cannot do the task": ("The network cannot do the task", "∅"),
    "running": ("Unfinished", "…"),
}
"""What each outcome is called, and a sign that does not depend on colour."""

_HEAD = re.compile(r"blocks\.(\d+)\.attn\.z\[(\d+)\]$")
_MLP = re.compile(r"blocks\.(\d+)\.mlp\.out$")


def number(value: float | int | None) -> str:
    """A number to about two digits, a true minus sign, and thin spaces between thousands; counts are written whole."""
    if value is None:
        return "–"
    size = abs(value)
    if isinstance(value, int) or size >= 1000:
        text = f"{value:,.0f}".replace(",", "\u2009")
    else:
        places = 3 if 0 < size < 0.01 else 2 if size < 10 else 1 if size < 100 else 0
        text = f"{value:.{places}f}"
        # what rounds to nothing has no sign
        text = text if float(text) else "0.00"
    return text.replace("-", "−")


def tiny(value: float) -> str:
    """A residual or a p-value with one or two digits, however small."""
    return f"{value:.2g}".replace("-", "−")


def between(estimate: Estimate | Control) -> str:
    """The ends of an interval."""
    return f"{number(estimate.low)} to {number(estimate.high)}"


def p_value(value: float | None) -> str:
    """A p-value as ``p = 0.002``."""
    if value is None:
        return "–"
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.2g}"


def component(site: str) -> str:
    """A component in short: ``L2 H3`` for a head, ``L2 MLP``; anything else as it is written."""
    if head := _HEAD.match(site):
        return f"L{head[1]} H{head[2]}"
    if mlp := _MLP.match(site):
        return f"L{mlp[1]} MLP"
    return site


def visible(token: str) -> str:
    """A token with its line breaks and tabs made visible."""
    return token.replace("\n", "↵").replace("\t", "⇥")


def sentence(text: str) -> str:
    """A phrase as a sentence: a capital first, a full stop last."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) or not text else ".")
