"""Hard forms of compiled networks: they behave as before, and their answer is still known.

    hard = Rotated(seed=1).apply(Distracted().apply(compiled))

*Redundant* and *Distracted* change what is compiled, so they come first; *Compressed*, *Rotated* and *Noisy* change
weights. Each checks what it made: a network that answers otherwise on some row is an error, not a form.

Redundant and distracted networks have the logits of the plain one, rotated ones up to rounding; in compressed and noisy
ones all parts interfere a little, and it is the answers that stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from openwork.errors import BadInput, TaskFailed
from openwork.zoo.compiled.compile import Compiled, Plan, compile_program, renamed
from openwork.zoo.compiled.compression import shipped, squeezes
from openwork.zoo.compiled.language import Indices, Map, Select, SelectorWidth, Tokens, Variable, in_order
from openwork.zoo.compiled.programs.recall import followed, previous
from openwork.zoo.compiled.rebase import behaves, checked, copied, rebase, rebased
from openwork.zoo.truth import Claims, TruthSettings, check

TRUTH = TruthSettings(examples=64, bootstraps=499)
"""The test that a squeezed network's known mechanism has to pass."""


class Form(Protocol):
    """A way to make a compiled network harder to read."""

    def apply(self, compiled: Compiled) -> Compiled:
        """The network in this form."""
        ...


@dataclass(frozen=True)
class Redundant:
    """The circuit several times, each copy with an equal part of the logits: any one of them suffices.

    Args:
        copies: how many circuits.
    """

    copies: int = 2

    def __post_init__(self) -> None:
        if self.copies < 2:
            raise BadInput(f"expected at least two copies, or there is no redundancy; got {self.copies}")

    def apply(self, compiled: Compiled) -> Compiled:
        """The network with more copies of its circuit.

        Raises:
            BadInput: if weights have been changed already.
        """
        return _recompiled(compiled, replace(compiled.plan, copies=self.copies), self)


@dataclass(frozen=True)
class Distracted:
    """Heads and MLP units beside the circuit, in the same layers, that the answer does not depend on.

    Some do real work: they find the previous word or what followed the latest like word, and count the words of every
    other kind. The others have random weights. All read the same residual stream as the circuit does.

    Args:
        random_heads: heads of random weights in each layer.
        seed: of these, and of the order of heads.
    """

    random_heads: int = 1
    seed: int = 0

    def apply(self, compiled: Compiled) -> Compiled:
        """The network with distractions.

        Raises:
            BadInput: if weights have been changed already.
        """
        used = in_order(compiled.program.output)
        tokens = next((v for v in used if isinstance(v, Tokens)), Tokens(words=compiled.program.domain.words))
        indices = next((v for v in used if isinstance(v, Indices)), Indices(context=compiled.program.domain.length))
        before = previous(tokens, indices)
        deep = compiled.network.config.layers > 1
        work = followed(tokens, indices, before, tokens, "copied") if deep else before
        idle = (work, _count_of_some(tokens, indices.context - 1))
        plan = replace(
            compiled.plan,
            idle=tuple(renamed(variable, " (idle)") for variable in idle),
            random_heads=self.random_heads,
            seed=self.seed,
        )
        return _recompiled(compiled, plan, self)


@dataclass(frozen=True)
class Rotated:
    """The residual stream in a random orthogonal basis, in which no channel means anything by itself.

    Args:
        seed: of the basis.
    """

    seed: int = 0

    def apply(self, compiled: Compiled) -> Compiled:
        """The network with its residual stream rotated."""
        width = compiled.network.config.width
        generator = torch.Generator().manual_seed(self.seed)
        turn = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q
        return rebased(compiled, turn, turn.T, torch.zeros(width), self)


@dataclass(frozen=True)
class Compressed:
    """The residual stream in fewer dimensions than it has directions: superposition.

    Plain programs take the matrices that ship with the zoo. Others (distracted, redundant, rotated) take the closed
    form of `openwork.zoo.compiled.compression`, which needs more dimensions. Squeezed hard, a network may come to read
    what matters from an idle circuit that says the same; so the known answer has to pass the test of its truth.

    Args:
        shares: parts of the width, for the closed form; the first is taken that changes no answer and leaves the known
            mechanism true.
    """

    shares: Sequence[float] = (0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)

    def apply(self, compiled: Compiled) -> Compiled:
        """The network in a narrower residual stream.

        Raises:
            TaskFailed: if no share does that.
            CorruptFile: if the matrices that ship are damaged.
        """
        width = compiled.network.config.width
        if compiled.plan == Plan() and not compiled.forms:
            found = shipped(compiled.program.name)
            share = round(found.write.shape[1] / width, 2)
            return rebased(compiled, found.write, found.read, found.offset, Compressed((share,)))
        task = compiled.program.task(TRUTH.examples)
        for share, found in zip(self.shares, squeezes(compiled, (round(s * width) for s in self.shares)), strict=True):
            made = rebase(compiled, found.write, found.read, found.offset, Compressed((share,)))
            if behaves(made) and check(made.network, task, Claims.of(made.known), TRUTH).holds:
                return made
        raise TaskFailed(
            f"expected {compiled.program.name!r} to bear compression to one of the shares {tuple(self.shares)}; all "
            "change answers or the mechanism: give larger ones"
        )


@dataclass(frozen=True)
class Noisy:
    """Gaussian noise on every weight, as much as behaviour bears; programs that count bear little.

    Args:
        sizes: standard deviations, as parts of the root mean square of the parameter that noise is added to; the first
            that changes no answer is taken.
        seed: of the noise.
    """

    sizes: Sequence[float] = (0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001, 0.00005)
    seed: int = 0

    def apply(self, compiled: Compiled) -> Compiled:
        """The network with noisy weights.

        Raises:
            TaskFailed: if all sizes change answers.
        """
        for size in self.sizes:
            generator = torch.Generator().manual_seed(self.seed)
            network = copied(compiled.network, compiled.network.config.width)
            with torch.no_grad():
                for parameter in network.parameters():
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter += size * parameter.square().mean().sqrt() * noise
            made = replace(compiled, network=network, forms=(*compiled.forms, replace(self, sizes=(size,))))
            if behaves(made):
                return made
        raise TaskFailed(
            f"expected {compiled.program.name!r} to bear noise of one of the sizes {tuple(self.sizes)}; all change "
            "answers: give smaller ones"
        )


def _count_of_some(tokens: Tokens, most: int) -> Variable:
    """How many words of every other kind are seen."""
    some = Select(tokens, tokens, lambda key, query: key in tokens.words[1::2])
    return Map("count", lambda width: width, SelectorWidth("1 / (1 + count)", some, most))


def _recompiled(compiled: Compiled, plan: Plan, form: Redundant | Distracted) -> Compiled:
    rewritten = [made for made in compiled.forms if not isinstance(made, (Redundant, Distracted))]
    if rewritten:
        raise BadInput(f"expected {form} before forms that change weights; {rewritten} came first: apply it first")
    return checked(replace(compile_program(compiled.program, plan), forms=(*compiled.forms, form)))


FORMS: dict[str, Callable[[], Form]] = {
    "redundant": Redundant,
    "distracted": Distracted,
    "compressed": Compressed,
    "rotated": Rotated,
    "noisy": Noisy,
}
"""Name -> form, in the order in which they are applied."""
