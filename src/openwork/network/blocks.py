"""Blocks and what they add to the residual stream, found from a dry run by algebra on the recorded tensors.

A block is a member of a list of modules each of which maps a hidden state to the next. Its contributions are the
outputs within it which, with a fitted scalar each, add up to the change of the hidden state.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from openwork.network.paths import Path
from openwork.network.record import Call, Trace, same

MAX_TERMS = 5
"""The largest number of tensors that are tried as one sum."""

MAX_SUBSETS = 100_000
"""The largest number of subsets of one size that are tried."""


@dataclass(eq=False)
class Contribution:
    """A tensor that a block adds to the residual stream: ``gain * output``, in the `shape` of the hidden state."""

    call: Call
    path: Path
    gain: float
    shape: torch.Size

    @property
    def dead(self) -> bool:
        """Whether it adds exactly nothing, as behind a gate of zero."""
        return not bool(self.value.any())

    @property
    def flat(self) -> bool:
        """Whether batch and position are one axis of the output."""
        return self.call.outputs[self.path].shape != self.shape

    @property
    def value(self) -> Tensor:
        """The output in the shape of the hidden state, without the gain."""
        return self.call.outputs[self.path].reshape(self.shape)


@dataclass(eq=False)
class Sum:
    """How one stream value follows from an earlier one: ``after = norm(base + sum of contributions)``.

    Args:
        base: the earlier value.
        after: the later value.
        terms: the contributions, in order of execution.
        norm: the call of the module that the sum goes through: a norm, in a post-norm block, or an activation. An
            activation that the block calls as a function goes without.
        residual: largest absolute deviation of the sum, relative to the largest value.
        exact: whether adding up in the model's own dtype gives the sum bit for bit.
        base_gain: the factor with which the earlier value enters.
        constant: whether a vector that is the same everywhere (a bias of its own) is added too.
    """

    base: Tensor
    after: Tensor
    terms: list[Contribution]
    norm: Call | None
    residual: float
    exact: bool
    base_gain: float = 1.0
    constant: bool = False


@dataclass(eq=False)
class Block:
    """One block.

    Args:
        prefix: ``""``, ``encoder.``, ``vision.`` ...
        index: its number.
        call: its call.
        pre: path of the hidden state in the call's inputs.
        post: path of the hidden state in the call's outputs.
        sums: the steps from pre to post; empty if they were not found, then `reason` says why.
        chained: whether the next block of the list reads exactly what this one returned (None for the last).
    """

    prefix: str
    index: int
    call: Call
    pre: Path
    post: Path
    sums: list[Sum] = field(default_factory=list)
    reason: str = ""
    chained: bool | None = None

    @property
    def name(self) -> str:
        return f"{self.prefix}blocks.{self.index}"


def hidden_ends(call: Call) -> tuple[Path, Path] | None:
    """Where the hidden state enters and leaves a call, or None if it has none."""
    inputs = {p: t for p, t in call.inputs.items() if t.is_floating_point() and t.ndim >= 2}
    outputs = {p: t for p, t in call.outputs.items() if t.is_floating_point() and t.ndim >= 2}
    for out_path, out in outputs.items():
        for in_path, value in inputs.items():
            if value.shape == out.shape:
                return in_path, out_path
        break  # the hidden state is the first tensor returned
    if inputs and outputs and next(iter(inputs.values())).ndim == next(iter(outputs.values())).ndim >= 3:
        return next(iter(inputs)), next(iter(outputs))
    return None


def block_lists(trace: Trace) -> list[list[Block]]:
    """The module lists whose members map hidden state to hidden state, as blocks without names.

    Of lists within one another the outermost wins whose blocks can be explained as sums; a list of stages, which
    change the shape, so gives way to the residual blocks in it. Without any sum, the outermost chains are taken.
    """
    groups: dict[tuple[str, int], list[Call]] = defaultdict(list)
    for call in trace.calls:
        match = re.fullmatch(r"(?:(.*)\.)?(\d+)", call.name)
        if match and call.end >= 0 and len(call.descendants()) >= 2:
            groups[match[1] or "", id(call.parent)].append(call)
    lists: list[list[Block]] = []
    for (path, _), calls in groups.items():
        found = [_block(path, call) for call in calls]
        blocks = [b for b in found if b is not None]
        if len(blocks) < len(calls):
            continue
        for block, later in itertools.pairwise(blocks):
            block.chained = same(block.call.outputs[block.post], later.call.inputs[later.pre])
        links = [b.chained for b in blocks[:-1]]
        if 2 * sum(map(bool, links)) >= len(links) or all(b.sums for b in blocks):
            lists.append(blocks)
    lists = [x for x in lists if _explained(x) >= _explained([b for y in _directly(lists, x) for b in y])]
    explained = [x for x in lists if _explained(x)]
    several = [x for x in explained if len(x) > 1] or [x for x in lists if len(x) > 1]
    kept = several or explained
    return [x for x in kept if not any(_inside(x, y) for y in kept)]


def _directly(lists: list[list[Block]], outer: list[Block]) -> list[list[Block]]:
    """The lists within one, without those that lie in another of them."""
    inner = [x for x in lists if _inside(x, outer)]
    return [x for x in inner if not any(_inside(x, y) for y in inner)]


def _explained(blocks: list[Block]) -> float:
    """The share of blocks whose sums were found."""
    return sum(bool(b.sums) for b in blocks) / max(len(blocks), 1)


def _block(path: str, call: Call) -> Block | None:
    ends = hidden_ends(call)
    if ends is None:
        return None
    pre, post = ends
    block = Block(path, 0, call, pre, post)
    block.sums, block.reason = explain(call, call.inputs[pre], call.outputs[post])
    return block


def _inside(inner: list[Block], outer: list[Block]) -> bool:
    """Whether all calls of one list happen within calls of the other."""
    return inner is not outer and all(any(b.call is not o.call and b.call.within(o.call) for o in outer) for b in inner)


def find_blocks(trace: Trace) -> list[Block]:
    """All blocks of the network, named and with the sums that lead from each one's input to its output."""
    lists = block_lists(trace)
    numbering: dict[str, int] = {}
    for blocks, prefix in zip(lists, _prefixes([blocks[0].prefix for blocks in lists]), strict=True):
        for block in blocks:
            block.prefix, block.index = prefix, numbering.get(prefix, 0)
            numbering[prefix] = block.index + 1
    return [block for blocks in lists for block in blocks]


_TOWERS = (
    ("vision", r"vision|visual|image|vit\b|pixel"),
    ("audio", r"audio|speech|wav"),
    ("qformer", r"qformer|resampler|perceiver"),
    ("decoder", r"decoder"),
    ("encoder", r"encoder"),
)


def _prefixes(paths: list[str]) -> list[str]:
    """A prefix for the list at each path: empty for the only list, and for the text tower beside others."""
    stems = [re.sub(r"\.?\d+(?=\.|$)", "", path) for path in paths]  # stages of one network share their numbering
    if len(set(stems)) <= 1:
        return [""] * len(paths)
    towers = [next((n for n, pattern in _TOWERS if re.search(pattern, path.lower())), "") for path in paths]
    if "decoder" not in towers or "" in towers:
        towers = ["" if t in ("encoder", "decoder") else t for t in towers]
    used: dict[str, str] = {}
    out = []
    for path, stem, tower in zip(paths, stems, towers, strict=True):
        if used.setdefault(tower, stem) != stem:
            tower = (f"{tower}." if tower else "") + path.replace(".", "_")
        out.append(f"{tower}." if tower else "")
    return out


def explain(call: Call, pre: Tensor, post: Tensor) -> tuple[list[Sum], str]:
    """The sums that lead from `pre` to `post` within one block call.

    Returns:
        (sums in order of execution, ""), or ([], why not).
    """
    candidates = _candidates(call, post.shape)
    options = _without(candidates, pre, post)
    if pre.shape == post.shape:
        direct = _fit(pre, post, options, None) or _fit_scaled(pre, post, options, None)
        direct = direct or _fit(pre, post, options, None, constant=True)
        if direct is None and same(pre, post):
            direct = Sum(pre, post, [], None, 0.0, True)
        if direct:
            _complete(direct, options)
            direct.terms = sorted([*direct.terms, *_dead(candidates, direct.terms)], key=lambda c: c.call.end)
            return [direct] if direct.terms else [], "nothing is added to the stream"
    sums: list[Sum] = []
    target = post
    for _ in range(4):  # norm(... + mlp), then norm(pre + attention); or a stream that is taken behind its norm
        norm = next((c for c in reversed(call.descendants()) if not c.children and _returns(c, target)), None)
        summed = next((t for t in norm.inputs.values() if t.shape == post.shape), None) if norm else None
        activation = _activation(call, target) if norm is None or summed is None else None
        if sums and norm is not None and summed is not None and same(summed, pre):
            return sums, ""
        if norm is None or summed is None:
            if sums and activation is None:
                break
            norm, summed = None, target if activation is None else activation[1]
        before = norm.start if norm is not None else call.end if activation is None else activation[0]
        options = [c for c in _without(candidates, pre, target, summed) if c.call.end <= before]
        step = _fit(pre, summed, options, norm) if pre.shape == post.shape else None
        step = step or _fit_from_shortcut(call, pre, summed, options, norm)
        step = step or _fit_from_candidate(summed, options, norm)
        if step is None:
            break
        step.after = target
        sums.insert(0, step)
        target = step.base
        if same(target, pre) or _shortcut(call, pre, target):
            return sums, ""
    if pre.shape != post.shape:
        return [], f"the hidden state changes shape from {tuple(pre.shape)} to {tuple(post.shape)}"
    return [], f"no sum of up to {MAX_TERMS} tensors within the block gives the change of the hidden state"


def _complete(step: Sum, options: list[Contribution]) -> None:
    """Adds a branch that adds too little for a fit to see it, where with it the sum is exact to the bit."""
    if step.exact or step.constant:
        return
    for one in _faint(options, step.after, step.terms):
        terms = sorted([*step.terms, one], key=lambda c: c.call.end)
        if _exact(step.base, step.after, terms):
            step.terms, step.exact, step.residual = terms, True, 0.0
            return


def faint(block: Block) -> list[Call]:
    """Branches of a block that were told from nothing by no fit, so that they have no sites."""
    after = block.call.outputs[block.post]
    terms = [term for step in block.sums for term in step.terms]
    return [c.call for c in _faint(_candidates(block.call, after.shape), after, terms)] if terms else []


def _faint(options: list[Contribution], after: Tensor, terms: list[Contribution]) -> list[Contribution]:
    """Outputs beside the terms that are too small for a fit to see."""
    live = [t.call for t in terms]
    least = _tolerance(after.dtype) * float(after.abs().max())
    return [
        c
        for c in options
        if float(c.value.abs().max()) <= least and not any(c.call.within(t) or t.within(c.call) for t in live)
    ]


def _dead(candidates: list[Contribution], terms: list[Contribution]) -> list[Contribution]:
    """Branches that add exactly nothing on this checkpoint; a fit cannot see them, a write at them can."""
    live = [t.call for t in terms]
    return [c for c in candidates if c.dead and not any(c.call.within(t) or t.within(c.call) for t in live)]


def _shortcut(call: Call, pre: Tensor, value: Tensor) -> bool:
    """Whether `value` is what a branch of its own makes of `pre`, in a block that changes the shape of the stream."""
    if value.shape == pre.shape:
        return False
    makers = [c for c in call.descendants() if _returns(c, value)]
    return any(same(t, pre) for c in makers for t in c.inputs.values())


def _activation(call: Call, target: Tensor) -> tuple[int, Tensor] | None:
    """When a function called within a block made `target`, and of what."""
    for inner in (call, *call.descendants()):
        for time, value, out in inner.activations:
            if same(out, target) and not same(value, target):
                return time, value
    return None


def _returns(call: Call, value: Tensor) -> bool:
    return any(same(t, value) for t in call.outputs.values())


def _candidates(call: Call, shape: torch.Size) -> list[Contribution]:
    """Outputs of hidden shape within a call, the shallowest of equal ones."""
    found: list[Contribution] = []
    flat = torch.Size((shape[:-1].numel(), shape[-1])) if len(shape) == 3 else shape
    for inner in call.descendants():
        for path, value in inner.outputs.items():
            if not value.is_floating_point() or value.shape not in (shape, flat):
                continue
            if bool(value.any()):
                known = any(same(value.reshape(shape), c.value) for c in found)
            else:  # a dead branch: zero like any other, so told apart by where it lies
                known = any(inner.within(c.call) for c in found if c.dead)
            if not known:
                found.append(Contribution(inner, path, 1.0, shape))
    return found


def _without(candidates: list[Contribution], *values: Tensor) -> list[Contribution]:
    return [c for c in candidates if not any(same(c.value, v) for v in values)]


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-5 if dtype in (torch.float32, torch.float64) else 3e-2


def _fit(
    base: Tensor, after: Tensor, options: list[Contribution], norm: Call | None, constant: bool = False
) -> Sum | None:
    """The smallest subset of `options` with ``base + sum(gain * value) == after``, or up to a `constant` vector."""
    change = _regressor(after.double() - base.double(), constant)
    solved = _subset(change, options, after, lambda terms: _exact(base, after, terms), constant)
    if solved is None:
        return None
    terms, residual = solved
    terms.sort(key=lambda c: c.call.end)
    exact = not constant and _exact(base, after, terms)
    return Sum(base, after, terms, norm, residual, exact, constant=constant)


def _regressor(value: Tensor, constant: bool) -> Tensor:
    """A tensor as one row of numbers; without its mean over all positions if a constant may be added to it."""
    value = value.double()
    if constant:
        value = value - value.flatten(0, -2).mean(0)
    return value.flatten()


def _fit_scaled(base: Tensor, after: Tensor, options: list[Contribution], norm: Call | None) -> Sum | None:
    """Like `_fit` with a factor on the base: ``base_gain * base + sum(gain * value) == after``."""
    scaled = _Column(base)
    solved = _subset(after.double().flatten(), [scaled, *options], after, lambda terms: False)
    if solved is None or not any(c is scaled or isinstance(c, _Column) for c in solved[0]) or len(solved[0]) < 2:
        return None
    gain = next(c.gain for c in solved[0] if isinstance(c, _Column))
    terms = sorted((c for c in solved[0] if isinstance(c, Contribution)), key=lambda c: c.call.end)
    return Sum(base, after, terms, norm, solved[1], _exact(base * gain, after, terms), gain)


@dataclass(eq=False)
class _Column:
    """The base of a sum as one more regressor."""

    value: Tensor
    gain: float = 1.0


def _fit_from_candidate(after: Tensor, options: list[Contribution], norm: Call | None) -> Sum | None:
    """Like `_fit` with the base among the options too: the latest one that the other terms come after."""
    for base in reversed(options):
        later = [c for c in options if c is not base and c.call.end > base.call.end]
        found = _fit(base.value, after, later, norm) or _fit_scaled(base.value, after, later, norm)
        if found and len(found.terms) <= 2:
            return found
    return None


def _fit_from_shortcut(
    call: Call, pre: Tensor, after: Tensor, options: list[Contribution], norm: Call | None
) -> Sum | None:
    """In a block that changes the shape: the base is the smallest branch that reads the stream as it came."""
    if pre.shape == after.shape:
        return None
    for base in sorted(options, key=lambda c: len(c.call.descendants())):
        if _shortcut(call, pre, base.value):
            found = _fit(base.value, after, [c for c in options if c is not base], norm)
            if found and len(found.terms) <= 2:
                return found
    return None


def _subset(
    target: Tensor, options: list[Any], like: Tensor, exact: Callable[[list[Any]], bool], constant: bool = False
) -> tuple[list[Any], float] | None:
    """The smallest subset of `options` whose values add up to `target`, and the residual.

    In half precision rounding hides small terms; there a subset that is `exact` wins over smaller ones that are not.
    """
    precise = like.dtype in (torch.float32, torch.float64)
    coarse: tuple[list[Any], float] | None = None
    limit = _tolerance(like.dtype)
    if not options or not torch.isfinite(target).all():
        return None
    columns = torch.stack([_regressor(c.value, constant) for c in options])
    if not torch.isfinite(columns).all():
        return None
    gram, moments, power = columns @ columns.T, columns @ target, target @ target
    if power == 0:
        return None
    ridge = 1e-13 * gram.diagonal().mean() * torch.eye(MAX_TERMS, dtype=gram.dtype)
    for size in range(1, min(MAX_TERMS, len(options)) + 1):
        if math.comb(len(options), size) > MAX_SUBSETS:
            break
        chosen = torch.combinations(torch.arange(len(options)), size)
        systems = gram[chosen[:, :, None], chosen[:, None, :]] + ridge[:size, :size]
        gains = torch.linalg.solve_ex(systems, moments[chosen].unsqueeze(-1)).result.squeeze(-1)
        missing = power - (gains * moments[chosen]).sum(1)  # a cheap estimate before the exact residual
        best: tuple[list[Any], float] | None = None
        for number in torch.nonzero(missing <= 1e3 * limit**2 * power + 1e-9 * power).flatten().tolist():
            index, factors = chosen[number].tolist(), gains[number]
            factors = torch.where((factors - 1).abs() < max(limit, 1e-4), torch.ones_like(factors), factors)
            subtracted = size > 2 and bool(((factors + 1).abs() < 1e-4).any())  # the stream under another name
            if subtracted or bool((factors.abs() < 1e-6).any()):
                continue
            error = float((target - factors @ columns[index]).norm() / target.norm())
            if error <= limit and (best is None or error < best[1]):
                pairs = zip(index, factors.tolist(), strict=True)
                best = [replace(options[i], gain=float(g)) for i, g in pairs], error
        if best is not None and (precise or exact(best[0])):
            return best
        coarse = coarse or best
    return coarse


def _exact(base: Tensor, after: Tensor, terms: list[Contribution]) -> bool:
    """Whether some order of adding in the model's own dtype gives `after` bit for bit."""
    scaled = [t.value if t.gain == 1.0 else t.value * t.gain for t in terms]
    for order in itertools.permutations([base, *scaled]):
        total = order[0]
        for value in order[1:]:
            total = total + value
        if same(total, after):
            return True
    for order in itertools.permutations(scaled):  # a residual added to the sum of parallel branches
        total = order[0]
        for value in order[1:]:
            total = total + value
        if same(base + total, after):
            return True
    return False
