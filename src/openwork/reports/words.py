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
    """A number with two decimals or two digits, a true minus sign, and thin spaces between thousands."""
    if value is None:
        return "–"
    size = abs(value)
    if float(value).is_integer() and size >= 1000:
        text = f"{int(value):,}".replace(",", "\u2009")
    elif size >= 1e5 or 0 < size < 1e-4:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        text = f"{mantissa}e{int(exponent)}"
    elif 0 < size < 0.01:
        text = f"{value:.2g}"
    else:
        text = f"{value:.{2 if size < 10 else 1 if size < 100 else 0}f}"
    return text.replace("-", "−")


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
