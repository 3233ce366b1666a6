"""The compiler: a program of the language becomes an ordinary transformer and the answer to what it does.

    compiled = compile_program(program)
    compiled.network                    # a Transformer without norms
    compiled.known                      # its roles, edges, looks and directions
    task = compiled.program.task(64)

Each `Aggregate`, `Share` and `SelectorWidth` takes a head (or those that share its work), each `Map` its units of one
layer's MLP, in the first layer in which all that they read is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from openwork.zoo.compiled.assemble import assemble, embed, unembed
from openwork.zoo.compiled.craft import Basis, head
from openwork.zoo.compiled.language import Aggregate, Indices, Select, Tokens, Variable, in_order
from openwork.zoo.compiled.program import Program
from openwork.zoo.compiled.wiring import PRIME, known_of, place
from openwork.zoo.known import Known
from openwork.zoo.transformer import Transformer

LEAD = 10.0
"""Logit of the answer; that of every other word is 0."""
UNREAD = 8
"""Channels that random heads write and nothing reads."""


@dataclass(frozen=True)
class Plan:
    """What a network holds beside one circuit for its program.

    Args:
        width: channels of the residual stream; as many as there are directions by default.
        copies: circuits of the program, each of which writes an equal part of the logits.
        idle: variables that are computed and that no answer depends on.
        random_heads: heads of each layer that are random and write where nothing reads.
        seed: of the order of heads, and of the random ones.
    """

    width: int | None = None
    copies: int = 1
    idle: Sequence[Variable] = ()
    random_heads: int = 0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program as a network.

    Attributes:
        program: the program.
        network: the transformer.
        known: its mechanism.
        plan: what else it holds.
        forms: the hard forms that it has been brought into, in order.
    """

    program: Program
    network: Transformer
    known: Known
    plan: Plan = Plan()
    forms: tuple[object, ...] = ()

    @property
    def variables(self) -> Mapping[str, Variable]:
        """The variables of the program, by name."""
        return {variable.name: variable for variable in in_order(self.program.output)}


def compile_program(program: Program, plan: Plan = Plan()) -> Compiled:
    """The network that computes a program.

    Args:
        program: what to compile.
        plan: what else the network is to hold.

    Returns:
        the network with its answer.

    Raises:
        BadInput: if the program is not of the language, or the plan's width is too small for it.
    """
    outputs = [renamed(program.output, PRIME * copy, plan.copies) for copy in range(plan.copies)]
    mentioned = in_order(*outputs, *plan.idle)
    tokens = next((v for v in mentioned if isinstance(v, Tokens)), Tokens(words=program.domain.words))
    indices = next((v for v in mentioned if isinstance(v, Indices)), Indices(context=program.domain.length))
    used, everything = in_order(tokens, indices, *outputs), in_order(tokens, indices, *outputs, *plan.idle)
    rng = np.random.default_rng(plan.seed)
    placement = place(everything, plan.random_heads, rng)
    basis = Basis(everything, plan.width, UNREAD if plan.random_heads else 0)
    parts = {v: head(v, basis, indices) for layer in placement.heads for v in layer if v is not None}
    network = assemble(placement, parts, basis, words=len(program.domain.words), causal=program.causal, rng=rng)
    embed(network, basis, tokens, indices)
    for output in outputs:
        unembed(network, basis, output, program, LEAD / plan.copies)
    return Compiled(program, network, known_of(program, placement, parts, basis, used, outputs), plan)


def renamed(variable: Variable, suffix: str, shares: int = 1) -> Variable:
    """A copy of a variable and of all that defines it, down to tokens and indices, under other names.

    Args:
        variable: what to copy.
        suffix: what is added to each name.
        shares: among how many such copies heads that share a work are divided; each has at least one.
    """
    if not suffix and shares == 1:
        return variable
    copies: dict[Variable, Variable] = {}
    for old in in_order(variable):
        if isinstance(old, (Tokens, Indices)):
            copies[old] = old
        else:
            parts: dict[str, Any] = {f.name: _in_terms_of(copies, getattr(old, f.name)) for f in fields(old) if f.init}
            parts["name"] = old.name + suffix
            if isinstance(old, Aggregate):
                parts["heads"] = max(1, old.heads // shares)
            copies[old] = type(old)(**parts)
    return copies[variable]


def _in_terms_of(copies: Mapping[Variable, Variable], part: object) -> object:
    """A field of a variable, with copies in place of the variables that it mentions."""
    match part:
        case Variable():
            return copies[part]
        case Select():
            prefer = tuple(replace(p, variable=copies[p.variable]) for p in part.prefer)
            return replace(part, keys=copies[part.keys], queries=copies[part.queries], prefer=prefer)
        case tuple():
            return tuple(_in_terms_of(copies, item) for item in part)
    return part
