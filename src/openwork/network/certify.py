"""Certificates: what is checked on this checkpoint before a site is offered.

Beside the identities of the dry run (sums, norms, projections): reading a site gives what the dry run recorded,
attention recomputed from its parts gives z, an identity write at every site at once leaves the output as it is, and a
gradient or a random write says whether anything written there reaches the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from openwork.errors import OpenworkError
from openwork.network.anatomy import Check, Found, SiteInfo, deviation, tolerance
from openwork.network.paths import leaves
from openwork.network.ports import AttentionPort, Port
from openwork.network.session import Session, Visit

WEIGHTS = ("scores", "pattern")


def forward(module: nn.Module, kwargs: Mapping[str, Any], visits: list[tuple[Port, Visit, bool]]) -> Any:
    """One call with visits: (port, visit, whether it writes)."""
    first = [kwargs[k] for k in ("input_ids", *kwargs) if isinstance(kwargs.get(k), Tensor)]
    with Session(module, first[0].shape[0] if first else 1) as session:
        for port, visit, writes in visits:
            port.attach(session, visit, writes)
        session.install()
        return module(**kwargs)


def first_output(output: Any) -> Tensor:
    """The tensor that stands for the output of a network: its logits, or the first floating tensor returned."""
    found = [(path, leaf) for path, leaf in leaves(output) if leaf.is_floating_point()]
    named = [leaf for path, leaf in found if path[-1:] in (("logits",), ("logits_per_image",))]
    if not found:
        raise OpenworkError("expected the network to return a floating tensor; it returned none")
    return (named or [found[0][1]])[0]


class Certifier:
    """Checks found sites on one network and one example.

    Args:
        module: the network.
        kwargs: the example.
        sites: the sites as found.
    """

    def __init__(self, module: nn.Module, kwargs: Mapping[str, Any], sites: list[Found]):
        self.module, self.kwargs = module, kwargs
        self.sites = {site.name: site for site in sites}
        self.refused: dict[str, str] = {}
        # modules with a fused path of their own leave it as soon as a hook or a function mode looks on
        self.fused = any(isinstance(m, (nn.MultiheadAttention, nn.TransformerEncoderLayer)) for m in module.modules())
        with torch.no_grad():
            self.plain = first_output(module(**kwargs)).clone()

    def certify(self) -> dict[str, SiteInfo]:
        """Run all checks.

        Returns:
            the sites that passed, in order of execution; `refused` has the others with the reason.
        """
        self._reads()
        self._attention()
        self._direct_weights()
        self._identity_writes([s for s in self.sites.values() if not _is_weight(s)], exact=True)
        self._identity_writes([s for s in self.sites.values() if _is_weight(s)], exact=False)
        reaching = self._reaching()
        out = {}
        for name, site in self.sites.items():
            failed = [c for c in site.checks if not c.ok]
            if failed:
                self.refused[name] = (
                    f"{failed[0].name}: off by {failed[0].residual:.1e}, at most {failed[0].tolerance:.0e}"
                )
                continue
            status = "certified" if name in reaching else "inert"
            out[name] = SiteInfo(
                name,
                site.axes,
                tuple(site.value.shape),
                status,
                tuple(site.checks),
                site.part_axis,
                site.value.element_size(),
            )  # fmt: skip
        return out

    def _refuse(self, name: str, reason: str) -> None:
        self.refused[name] = reason
        del self.sites[name]

    def _reads(self) -> None:
        """What a run shows at every site is what the dry run recorded."""
        seen: dict[str, Tensor] = {}
        visits = [(s.port, _store(seen, s.name), False) for s in self.sites.values()]
        try:
            with torch.no_grad():
                output = first_output(forward(self.module, self.kwargs, visits))
        except Exception as error:
            if not any(_is_weight(s) for s in self.sites.values()):
                raise
            for name in [n for n, s in self.sites.items() if _is_weight(s)]:
                self._refuse(name, f"reading it fails: {in_one_line(error)}")
            return self._reads()
        limit = tolerance(self.plain.dtype) if self.fused else 0.0
        unchanged = Check("reading changes nothing", deviation(output, self.plain), limit)
        for name, site in list(self.sites.items()):
            if name not in seen:
                self._refuse(name, "a read never fired")
                continue
            if _is_weight(site):
                site.value = seen[name]
            else:
                limit = tolerance(seen[name].dtype) if self.fused else 0.0
                site.checks.append(Check("read == recorded", deviation(seen[name], site.value), limit))
            if not unchanged.ok:
                site.checks.append(unchanged)
        return None

    def _attention(self) -> None:
        """``pattern @ v == z``, the softmax of the scores is the pattern, and its rows sum to one at most."""
        for name in [n for n in self.sites if n.endswith(".pattern")]:
            stem = name.removesuffix("pattern")
            names = [stem + part for part in ("v", "z", "scores")]
            if any(n not in self.sites for n in names):
                continue
            pattern = self.sites[name].value.float()
            v, z, scores = (self.sites[n].value.float() for n in names)
            limit = tolerance(self.sites[names[0]].value.dtype)
            if v.shape[2] != pattern.shape[1]:
                v = v.repeat_interleave(pattern.shape[1] // v.shape[2], 2)
            mixed = torch.einsum("bhqk,bkhd->bqhd", pattern, v) if v.shape[1] == pattern.shape[-1] else pattern
            check = Check("pattern @ v == z", deviation(mixed, z), limit)
            if not check.ok and mixed.shape == z.shape:  # gates and sinks scale what a query gets
                factor = (mixed * z).sum(-1, keepdim=True) / mixed.pow(2).sum(-1, keepdim=True).clamp_min(1e-30)
                check = Check("pattern @ v == z up to a factor per query", deviation(factor * mixed, z), limit)
            excess = float((pattern.sum(-1) - 1).clamp_min(0).max())
            share = torch.softmax(scores, -1) * pattern.sum(-1, keepdim=True)  # sinks take the rest
            soft = Check("softmax(scores) == pattern", deviation(share, pattern), limit)
            for part in ("q", "k", "v", "z", "pattern", "scores"):
                if stem + part in self.sites:
                    self.sites[stem + part].checks.append(check)
            self.sites[name].checks.append(Check("rows sum to 1", excess, limit))
            self.sites[stem + "scores"].checks.append(soft)

    def _direct_weights(self) -> None:
        """Read weights by the plain formula from now on wherever it gives what the eager function gave."""
        stems = [n.removesuffix("pattern") for n, s in self.sites.items() if _is_weight(s) and n.endswith("pattern")]
        ports = {n: replace(self.sites[n].port, direct=True) for s in stems for n in (s + "scores", s + "pattern")}
        seen: dict[str, Tensor] = {}
        try:
            with torch.no_grad():
                forward(self.module, self.kwargs, [(port, _store(seen, n), False) for n, port in ports.items()])
        except Exception:  # the formula does not even fit the shapes: the eager function stays
            return
        for stem in stems:
            names = (stem + "scores", stem + "pattern")
            limit = tolerance(self.sites[names[1]].value.dtype) / 10
            if all(n in seen and deviation(_visible(seen[n]), _visible(self.sites[n].value)) <= limit for n in names):
                for name in names:
                    self.sites[name].port = ports[name]

    def _identity_writes(self, sites: list[Found], exact: bool) -> None:
        """Writing a copy of what is there leaves the output bit for bit (patterns: up to rounding of the eager sum)."""
        limit = 0.0 if exact and not self.fused else tolerance(self.plain.dtype)

        def check(group: list[Found]) -> None:
            if not group:
                return
            try:
                with torch.no_grad():
                    visits: list[tuple[Port, Visit, bool]] = [(s.port, _clone, True) for s in group]
                    residual = deviation(first_output(forward(self.module, self.kwargs, visits)), self.plain)
                problem = ""
            except Exception as error:
                residual, problem = float("inf"), in_one_line(error)
            if residual <= limit or len(group) == 1:
                for site in group:
                    site.checks.append(Check("identity write", residual, limit))
                if problem:
                    self._refuse(group[0].name, f"writing it fails: {problem}")
                return
            check(group[: len(group) // 2])
            check(group[len(group) // 2 :])

        check(sites)

    def _reaching(self) -> set[str]:
        """The sites from which a write reaches the output: by one gradient, and by a random write where it is zero."""
        names = [n for n, s in self.sites.items() if all(c.ok for c in s.checks)]
        reaching = self._by_gradient(names)
        for name in names:
            if name not in reaching and self._by_write(name):
                reaching.add(name)
        return reaching

    def _by_gradient(self, names: list[str]) -> set[str]:
        held: dict[str, Tensor] = {}
        visits = [(self.sites[n].port, tracked(held, n), True) for n in names]
        generator = torch.Generator().manual_seed(0)
        try:
            with torch.enable_grad():
                output = first_output(forward(self.module, self.kwargs, visits)).float()
                weights = torch.randn(output.shape, generator=generator).to(output.device)
                grads = torch.autograd.grad((output * weights).sum(), list(held.values()), allow_unused=True)
        except Exception:  # not differentiable (quantised weights, say): the random writes decide
            return set()
        return {
            name
            for name, grad in zip(held, grads, strict=True)
            if grad is not None and bool(torch.isfinite(grad).all()) and bool((grad != 0).any())
        }

    def _by_write(self, name: str) -> bool:
        return any(self._disturbed(name, scale) for scale in (1.0, 30.0))  # a choice of experts takes a large one

    def _disturbed(self, name: str, scale: float) -> bool:
        generator = torch.Generator().manual_seed(1)

        def disturb(value: Tensor) -> Tensor:
            noise = torch.randn(value.shape, generator=generator).to(value)
            shown = value.float()[value > torch.finfo(value.dtype).min / 4]  # not what a mask hides
            return value + scale * noise * (shown.std().nan_to_num(1.0) + 1e-3).to(value)

        try:
            with torch.no_grad():
                output = first_output(forward(self.module, self.kwargs, [(self.sites[name].port, disturb, True)]))
        except Exception:  # what breaks the forward pass has reached it
            return True
        return bool(torch.isfinite(output).all()) and not torch.equal(output, self.plain)


def tracked(held: dict[str, Tensor], name: str) -> Visit:
    """The visit that makes a value differentiable in itself without cutting the graph, and holds it."""

    def visit(value: Tensor) -> Tensor:
        value = value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
        held[name] = value
        return value

    return visit


def _visible(scores: Tensor) -> Tensor:
    """Scores with masked entries, which are some very low number, at zero."""
    return scores.float().masked_fill(scores < torch.finfo(scores.dtype).min / 4, 0.0)


def _clone(value: Tensor) -> Tensor:
    return value.clone()


def _store(seen: dict[str, Tensor], name: str) -> Visit:
    def visit(value: Tensor) -> None:
        seen[name] = value.detach().clone()

    return visit


def _is_weight(site: Found) -> bool:
    return isinstance(site.port, AttentionPort) and site.port.part in WEIGHTS


def in_one_line(error: BaseException) -> str:
    """What an error says, in one line, for the reason of a refusal."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def is_causal(module: nn.Module, kwargs: Mapping[str, Any], main: str, sites: dict[str, SiteInfo], ports: Any) -> bool:
    """Whether a changed last token leaves every earlier row of every hidden state as it was.

    The new token is random: a constant shift can hide behind a norm.
    """
    ids = kwargs.get(main)
    names = [n for n, s in sites.items() if n.endswith("resid_post") and s.axes == ("batch", "position", "channel")]
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.ndim != 2 or not names:
        return False
    if any(isinstance(v, Tensor) and v.is_floating_point() for v in kwargs.values()):
        return False
    changed = ids.clone()
    changed[:, -1] = torch.where(ids[:, -1] == ids[:, 0], ids[:, 1], ids[:, 0])
    if torch.equal(changed, ids):
        return False
    rows = []
    for value in (ids, changed):
        seen: dict[str, Tensor] = {}
        with torch.no_grad():
            forward(module, {**kwargs, main: value}, [(ports[n], _store(seen, n), False) for n in names])
        rows.append(seen)
    before, after = rows
    same_earlier = all(deviation(after[n][:, :-1], before[n][:, :-1]) <= 1e-6 for n in names)
    moved = any(not torch.equal(after[n][:, -1], before[n][:, -1]) for n in names)
    return same_earlier and moved
