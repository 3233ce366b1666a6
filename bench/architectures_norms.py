"""Norm scales of an opened network against plain torch: which norm is it, and what does writing it do.

Two norms that read one stream have equal scales, so numbers alone cannot tell them apart: the scale is doubled, and the
norm is the one at which a plain hook that halves the normalised values has the same effect.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

import openwork as ow
from architectures_plain import Place, PlainCall, multiple, off
from architectures_seen import BLOCK, CLOSE, Seen

LAYERS = {"norm1": ("attn", "mixer"), "norm2": ("mlp",), "norm_cross": ("cross",)}


class Norms:
    """Compares every kept scale of a network with plain torch."""

    def __init__(self, seen: Seen):
        self.seen = seen
        self.obeying: dict[str, list[PlainCall]] = {}

    def judge(self, name: str, member: PlainCall) -> None:
        """Make every comparison at one site."""
        match, judge = BLOCK.fullmatch(name), self.seen.findings.judge
        assert match is not None
        block, norm = match[1] + match[2], match[3].rpartition(".")[0]
        norms = self._dividing(self.seen.kept[name], member)
        judge(name, "no norm of the block divides by it", 0.0 if norms else 1.0)
        if not norms or self.seen.net.sites[name].status == "inert":
            return
        mine = self.obeying[name] = self._obeying(name, norms)
        judge(name, "doubling it differs from a plain hook at any norm", 0.0 if mine else 1.0)
        judge(name, "is the scale of another norm", self._belongs(block, norm, mine, member))
        others = [n for n in self.obeying if n != name and n.startswith(f"{block}.norm")]
        shared = [n for n in others if any(call in self.obeying[n] for call in mine)]
        judge(name, f"is the same norm as {', '.join(shared)}", 1.0 if shared else 0.0)

    def _dividing(self, value: Tensor, member: PlainCall) -> list[PlainCall]:
        """The norms of the block of whose input this is the standard deviation or the root mean square."""
        found = []
        for call in self.seen.plain.calls:
            if call.is_norm and call.within(member):
                names = (n for n in ("eps", "variance_epsilon", "epsilon") if hasattr(call.module, n))
                eps = float(next((getattr(call.module, n) for n in names), 0.0))
                for tensor in call.inputs.values():
                    if tensor.shape[:-1].numel() == value.numel():
                        wide = tensor.double().reshape(*value.shape[:-1], -1)
                        squares = (wide.var(-1, keepdim=True, unbiased=False), wide.pow(2).mean(-1, keepdim=True))
                        if min(off((x + eps).sqrt(), value.double()) for x in squares) <= CLOSE:
                            found.append(call)
        return found

    def _obeying(self, name: str, norms: list[PlainCall]) -> list[PlainCall]:
        """The norms at which a plain hook does what doubling this scale does."""
        got = self.seen.net.run(self.seen.tiny.example, edits=[ow.Scale(ow.Site.parse(name), factor=2.0)]).logits
        found = []
        for call in norms:
            out, bias = call.outputs[()], getattr(call.module, "bias", None)
            halved = out / 2 if not isinstance(bias, Tensor) else bias.detach() + (out - bias.detach()) / 2
            if off(got, self.seen.plain.writing([Place(call, "out", ())], halved)) <= CLOSE:
                found.append(call)
        return found

    def producers(self, block: str, member: PlainCall) -> dict[str, PlainCall]:
        """For each sub-layer the call that returns what it adds, the innermost one."""
        found = {}
        for name in self.seen.kept:
            if re.fullmatch(re.escape(block) + r"\.[a-z]+\d*\.out", name):
                calls = [
                    p.call for p in self.seen.places(name, scaled=True) if p.side == "out" and p.call.within(member)
                ]
                if calls:
                    found[name[len(block) + 1 : -4]] = min(calls, key=lambda call: call.end)
        return found

    def _belongs(self, block: str, norm: str, norms: list[PlainCall], member: PlainCall) -> float | None:
        """0 if one of these norms is that of the right sub-layer.

        That is the norm that returns what the sub-layer reads, or what it adds, or that reads the sum of both.
        """
        kept, producers = self.seen.kept, self.producers(block, member)
        layer = next((x for x in LAYERS.get(norm, ()) if x in producers), None)
        if layer is None or not norms:
            return None
        added, reads = kept[f"{block}.{layer}.out"], kept.get(f"{block}.{layer}.in")
        for call in (c for c in norms if c.outputs[()].numel() == added.numel()):
            out = call.outputs[()].reshape(added.shape)
            if (reads is not None and off(out, reads) < 1e-5) or multiple(added, out) is not None:
                return 0.0
            later = call.start > producers[layer].end
            if later and (reads is None or any(_is_sum(t, reads, added) for t in call.inputs.values())):
                return 0.0
        return 1.0


def _is_sum(value: Tensor, first: Tensor, second: Tensor) -> bool:
    """Whether a tensor is a combination of two others with one factor each."""
    if value.numel() != first.numel():
        return False
    columns = torch.stack([first.double().flatten(), second.double().flatten()], 1)
    target = value.double().flatten()
    solved = torch.linalg.lstsq(columns, target).solution
    return bool(solved.abs().min() > 1e-6) and off(columns @ solved, target) <= CLOSE
