"""`openwork attribute`: which tokens each method puts a behaviour down to, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli.inquiry import Inquiry, inquiry
from openwork.cli.options import Alpha, Memory
from openwork.errors import BadInput, UnknownName

if TYPE_CHECKING:
    from openwork.attribution.method import Method
    from openwork.results.result import Result

USUAL = ("relp", "integrated gradients")


def register(app: typer.Typer) -> None:
    """Add the command."""
    inquiry(app, "attribute")(attribute)


def attribute(
    on: Inquiry,
    method: Annotated[
        list[str] | None, typer.Option(help="Method, again for more: relp, occlusion …; relp and integrated gradients.")
    ] = None,
    knob: Annotated[
        list[str] | None, typer.Option(help="Knob of the methods that have it, as name=value: steps=64, baseline=mean.")
    ] = None,
    site: Annotated[str | None, typer.Option(help="Where to attribute to; the input unless given.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Token group to consider, again for more; all of the task's, and changed.")
    ] = None,
    claims: Annotated[int, typer.Option(help="Groups of each method to test on held-out examples.")] = 1,
    alpha: Alpha = 0.05,
    memory: Memory = "1GiB",
) -> Result:
    """Put a behaviour down to tokens, by several methods, against random tokens and shuffled weights."""
    from openwork.attribution.attribute import Attributing
    from openwork.attribution.attribute import attribute as attributed
    from openwork.results.claims import Standard

    chosen = [replace(one, memory=memory) for one in methods(method or USUAL, [*(knob or [])], site)]
    about = Attributing(tuple(group or ()), claims, Standard(alpha=alpha), on.seed)
    return attributed(on.net, on.task, chosen, about, tick=on.tick)


def methods(names: Sequence[str], knobs: Sequence[str], site: str | None = None) -> list[Method]:
    """Methods by name, with knobs of the form ``name=value`` set on all that have them.

    Raises:
        UnknownName: for a method that does not exist, or a knob that none of them has.
        BadInput: for a knob that is not of this form, or a value that the method refuses.
    """
    from openwork.attribution.attribute import METHODS

    found = []
    for name in names:
        plain = name.lower().replace("-", " ").replace("_", " ")
        if plain not in METHODS:
            raise UnknownName.among("attribution method", name, METHODS)
        found.append(METHODS[plain])
    given = dict(_knob(text) for text in knobs)
    if site is not None:
        given["site"] = site
    known = {item.name for one in found for item in fields(one)}
    for name in given:
        if name not in known:
            raise UnknownName.among("knob", name, known)
    out = []
    for one in found:
        own = {name: value for name, value in given.items() if name in {item.name for item in fields(one)}}
        for name, value in own.items():
            _check(one, name, value)
        out.append(replace(one, **own))
    return out


def _knob(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name or not value:
        raise BadInput(f"expected --knob as name=value, such as steps=64; got {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _check(method: Method, name: str, value: Any) -> None:
    """Refuse a value of another kind than the knob's own."""
    now = getattr(method, name)
    same = isinstance(value, (int, float)) if isinstance(now, float) else type(value) is type(now)
    if now is not None and (not same or isinstance(value, bool)):
        raise BadInput(f"expected {name} of {method.name} as a {type(now).__name__}; got {value!r}")
