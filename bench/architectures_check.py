"""Is anything silently wrong? Sites of an opened network against plain hooks, site by site.

Every kept value is looked up in a plain recording of the same forward pass; every residual sum is added up again;
attention patterns are compared with those that the model itself returns on its eager path; writes are compared with a
plain hook that writes the same; and, in a causal model, a later token must leave every earlier row as it was.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from architectures_plain import main_output, off
from architectures_reads import Reads
from architectures_seen import CLOSE, Findings, Seen
from architectures_writes import Writes
from tiny_base import Tiny


class Judge:
    """Compares one opened network with plain torch."""

    def __init__(self, tiny: Tiny, net: Any, seed: int, writes: int):
        self.hooks = _hooks(tiny.module)
        self.seen = Seen(tiny, net, seed)
        self.writes = writes

    def judge(self) -> Findings:
        """Make every comparison."""
        self._unedited()
        Reads(self.seen).judge()
        Writes(self.seen, self.writes).judge()
        self._causality()
        left = _hooks(self.seen.tiny.module) - self.hooks
        self.seen.findings.judge("the module", f"has {left} hooks that were not there before", float(left), 0.0)
        return self.seen.findings

    def _unedited(self) -> None:
        """Outputs of unedited runs are those of the bare module."""
        seen, findings = self.seen, self.seen.findings
        whole, kept = seen.net.run(seen.tiny.example).logits, seen.run.logits
        findings.exact, findings.exact_kept = torch.equal(whole, seen.bare), torch.equal(kept, seen.bare)
        findings.judge("logits", "an unedited run differs from the bare module", off(whole, seen.bare), 0.0)
        findings.judge("logits", "keeping every site changes the output", off(kept, seen.bare))

    def _causality(self) -> None:
        """In a causal model, a changed token leaves every earlier row of every site as it was."""
        ids = self.seen.tiny.example.get("input_ids", self.seen.tiny.example.get("ids"))
        if self.seen.tiny.family not in ("causal", "plain", "masked") or ids is None or ids.ndim != 2:
            return
        key = "input_ids" if "input_ids" in self.seen.tiny.example else "ids"
        width = ids.shape[1]
        honest = True
        for changed in (width - 1, width // 2):
            other = ids.clone()
            other[:, changed] = (ids[:, changed] - 10 + 37) % 80 + 10
            inputs = {**self.seen.tiny.example, key: other}
            with torch.no_grad():
                bare = main_output(self.seen.tiny.module(**inputs))
            if self.seen.bare.ndim == 3 and self.seen.bare.shape[1] == width:
                honest &= off(bare[:, :changed], self.seen.bare[:, :changed]) <= CLOSE
            if not self.seen.net.causal:
                continue
            run = self.seen.net.run(inputs, keep=list(self.seen.kept))
            for name, before in self.seen.kept.items():
                axes = self.seen.net.sites[name].axes
                axis = next((axes.index(a) for a in ("position", "query") if a in axes), None)
                if axis is not None and before.shape[axis] == width:
                    pair = (x.narrow(axis, 0, changed) for x in (run[name], before))
                    got, expected = (torch.nan_to_num(x, neginf=-1e9) for x in pair)
                    self.seen.findings.judge(
                        name, f"token {changed} changes an earlier row of a causal network", off(got, expected)
                    )
        if self.seen.net.causal and not honest:
            self.seen.findings.wrong.append("the network is called causal, but a later token changes earlier logits")
        if honest and not self.seen.net.causal and self.seen.tiny.family == "causal":
            self.seen.findings.notes.append("causal, but not recognised as causal")


def _hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())
