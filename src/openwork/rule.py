"""Rules of the backward pass as data: what is held at its recorded value, and what replaces a derivative.

A rule changes gradients and nothing else: the forward pass of a call with rules is that of a call without them, bit for
bit. `openwork.network.rules` carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from openwork.errors import BadInput

FROZEN = ("norm", "pattern")
HOWS = {
    "activation": ("secant", "positive", "identity", "mean"),
    "product": ("half",),
    "linear": ("epsilon",),
    "pool": ("average",),
}


@dataclass(frozen=True)
class Freeze:
    """Hold something at its recorded value: no gradient flows through it.

    Args:
        of: ``norm``, what norms divide by; ``pattern``, what a softmax gives, so that attention moves values by a fixed
            pattern.
    """

    of: str

    def __post_init__(self) -> None:
        if self.of not in FROZEN:
            raise BadInput(f"expected of= as one of {FROZEN}; got {self.of!r}")

    def to_json(self) -> dict[str, Any]:
        """A record from which `rule_from_json` makes an equal rule."""
        return {"rule": "Freeze", "of": self.of}


@dataclass(frozen=True)
class BackwardRule:
    """Replace the derivative of an operation.

    Args:
        of: ``activation``, pointwise functions; ``product``, products of two values that both depend on the input,
            as gates are; ``linear``, linear maps and convolutions; ``pool``, maxima over windows or places of maps.
        how: ``secant``: f(x) is (f(x) - f(0)) / x times x, so that relevance passes an activation unchanged;
            ``positive``: gradients that are negative, or come to a negative input, are dropped (guided
            backpropagation); ``identity``: the derivative is 1; ``mean``: for each channel the derivative is its own
            mean over all rows and places of the call; ``average``: a maximum passes the gradient of the average over
            the same window; ``half``: each factor of a product gets half of its gradient; ``epsilon``: the gradient
            of an output z is multiplied by z / (z + epsilon sign z).
        strength: epsilon.

    Source:
        secant and half: Achtibat et al. 2024, AttnLRP, equations 9 and 14; Jafari et al. 2025, RelP. epsilon: Bach et
        al. 2015, equation 58. positive: Springenberg et al. 2015. identity and average: Voss et al. 2021, Visualizing
        weights, the section on expanded weights.
    """

    of: str
    how: str
    strength: float = 1e-6

    def __post_init__(self) -> None:
        if self.how not in HOWS.get(self.of, ()):
            known = ", ".join(f"{of} {how}" for of, hows in HOWS.items() for how in hows)
            raise BadInput(f"expected one of the rules {known}; got {self.of} {self.how}")
        if not self.strength > 0:
            raise BadInput(f"expected a strength above 0; got {self.strength}")

    def to_json(self) -> dict[str, Any]:
        """A record from which `rule_from_json` makes an equal rule."""
        return {"rule": "BackwardRule", "of": self.of, "how": self.how, "strength": self.strength}


Rule = Freeze | BackwardRule

RELP: tuple[Rule, ...] = (
    Freeze("norm"),
    Freeze("pattern"),
    BackwardRule("activation", "secant"),
    BackwardRule("product", "half"),
)
"""Under these rules a network without biases is linear in its input: gradient times input adds up to the output.

Source: Jafari et al. 2025, RelP: faithful and efficient circuit discovery via relevance patching, table 1.
"""

ATTN_LRP: tuple[Rule, ...] = (
    Freeze("norm"),
    BackwardRule("activation", "secant"),
    BackwardRule("product", "half"),
    BackwardRule("linear", "epsilon"),
)
"""Relevance also flows through the softmax, by its gradient, and through queries and keys.

Source: Achtibat et al. 2024, AttnLRP, sections 3.2 and 3.3.
"""

GUIDED: tuple[Rule, ...] = (BackwardRule("activation", "positive"),)
"""Source: Springenberg et al. 2015, Striving for simplicity."""

LINEARISED: tuple[Rule, ...] = (Freeze("norm"), BackwardRule("activation", "identity"), BackwardRule("pool", "average"))
"""Under these rules gradients are the weights of a network without its nonlinearities.

Source: Voss et al. 2021, Visualizing weights, the section on expanded weights.
"""

AVERAGED: tuple[Rule, ...] = (Freeze("norm"), BackwardRule("activation", "mean"), BackwardRule("pool", "average"))
"""The same with every nonlinearity at its mean slope on the images of the call."""


def rule_from_json(record: Any) -> Rule:
    """The rule of which `record` is the JSON form.

    Raises:
        BadInput: if it is none.
    """
    try:
        given = dict(record)
        kind = {"Freeze": Freeze, "BackwardRule": BackwardRule}[given.pop("rule")]
        return kind(**given)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"expected the record of a Freeze or a BackwardRule; got {record!r}") from error


def checked(rules: Any) -> tuple[Rule, ...]:
    """Rules as a tuple, each thing ruled once.

    Raises:
        BadInput: for what is no rule, or two rules for one thing.
    """
    given = tuple(rules)
    for rule in given:
        if not isinstance(rule, Freeze | BackwardRule):
            raise BadInput(f"expected rules such as Freeze('norm') or BackwardRule('product', 'half'); got {rule!r}")
    things = [rule.of for rule in given]
    twice = next((thing for thing in things if things.count(thing) > 1), None)
    if twice is not None:
        raise BadInput(f"expected one rule for each thing; got several for {twice!r}")
    return given
