"""What the network reads of a site: the linear map behind it, found by probing, or its average sensitivity.

A direction of the null space of that map is *disconnected*: whatever is written along it, nothing after it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.causal.swaps import Place
from openwork.edit import Custom, Patch
from openwork.errors import OpenworkError
from openwork.site import Site
from openwork.task import Batch

if TYPE_CHECKING:
    from openwork.network.run import Run

SLOTS = 512
"""Directions that one probing pass writes, each at a token of its own."""
SAMPLE = 4
"""Examples on which a map is checked to be linear, token by token, and the only way on."""
SENSED = 32
"""Examples whose gradients are averaged."""
SENSITIVITY = 1e-2
"""Directions less sensitive than this share of the most sensitive one count as disconnected."""
INSIDE = 1e-3
"""A part of a unit vector shorter than this is none."""


@dataclass(frozen=True, eq=False)
class ReadOut:
    """What is read of a site.

    Args:
        site: the site.
        reader: the site whose value is a linear function of it and through which alone it acts; or the logits.
        kind: ``linear`` for that function itself, ``jacobian`` for directions in the order of how the logits react to
            them on average, to first order, where there is no such function.
        matrix: (out, channel) the map.
        tolerance: singular values below this share of the largest are zero.
    """

    site: str
    reader: str
    kind: Literal["linear", "jacobian"]
    matrix: Float[np.ndarray, "out channel"]
    tolerance: float

    def __post_init__(self) -> None:
        _, values, right = np.linalg.svd(self.matrix, full_matrices=False)
        kept = values > self.tolerance * max(float(values.max(initial=0.0)), 1e-30)
        object.__setattr__(self, "_rows", right[kept])

    @property
    def rows(self) -> Float[np.ndarray, "rank channel"]:
        """An orthonormal basis of the row space: of all that is read."""
        return self._rows  # type: ignore[attr-defined]

    @property
    def rank(self) -> int:
        """How many dimensions are read."""
        return len(self.rows)

    @property
    def channels(self) -> int:
        """How many dimensions there are."""
        return self.matrix.shape[1]

    def read(self, vectors: Float[np.ndarray, "... channel"]) -> Float[np.ndarray, "... channel"]:
        """The projection of vectors on the row space."""
        return vectors @ self.rows.T @ self.rows

    def __str__(self) -> str:
        how = "the linear map to" if self.kind == "linear" else "the average first-order reaction of"
        return f"{how} {self.reader} ({self.rank} of {self.channels} dimensions are read)"


def read_out(place: Place, batch: Batch) -> ReadOut:
    """What the network reads of a place.

    The linear map is looked for among the later sites of the block and the outputs of the module that takes the value
    in: it must be linear on random writes, act token by token, and carry every effect (with its value held, no write
    reaches the logits). Of several, the one that reads least is taken; one that only hands the value on, as a sum does,
    is no read-out. Residual streams and whatever else is read by
    several things in a non-linear way get the Jacobian of the logits instead, averaged over clean and corrupted runs.

    Args:
        place: the site and positions.
        batch: the examples to look at.

    Returns:
        the map, exact up to rounding if it is linear.

    Raises:
        BadInput: if there is no linear map and the network has no gradients either.

    Source:
        Makelov, Lange and Nanda 2023, section 3: the null space of W_out behind MLP activations.
    """
    return _linear(place, batch) or _sensitivity(place, batch)


def _linear(place: Place, batch: Batch) -> ReadOut | None:
    """The linear map behind the site, or None if no later site is one."""
    if place.axes[-1] != "channel" or place.axes[:-1] not in (("batch",), ("batch", "position"), _HEADS):
        return None
    prober = _Prober(place, batch.corrupted.take(range(min(SAMPLE, len(batch)))))
    readers = [name for name in prober.linear(_later(place)) if prober.only_way(name)]
    if not readers:
        return None
    found = []
    for name, matrix in prober.matrices(readers).items():
        if not _handed_on(matrix, prober.tolerance):
            found.append(ReadOut(str(place.site), name, "linear", matrix, prober.tolerance / 10))
    return min(found, key=lambda readout: readout.rank, default=None)


def _handed_on(matrix: Float[np.ndarray, "out channel"], tolerance: float) -> bool:
    """Whether every channel goes on as it is: the same tensor under another name, or added to the residual stream."""
    large = np.abs(matrix) > 10 * tolerance * np.abs(matrix).max()
    values = np.abs(matrix[large])
    return bool((large.sum(0) == 1).all() and large.sum(1).max() == 1 and np.ptp(values) <= 1e-2 * values.max())


_HEADS = ("batch", "position", "head")


def _later(place: Place) -> list[str]:
    """Sites that may be a function of this one: later ones of its block, and what the modules around it return."""
    net, here = place.net, place.site
    stem = here.path.rpartition("blocks.")[0]
    names = [
        name
        for name, info in net.sites.items()
        if net.map.order(name) > net.map.order(here.path) and info.axes[-1] == "channel" and _same_tokens(info, place)
        if name == "logits" or (Site.parse(name).block == here.block and name.rpartition("blocks.")[0] == stem)
    ]
    module = getattr(net.map.port(here.path), "module", None)
    path = next((name for name, other in net.root.named_modules() if other is module), "")
    while path:
        name = f"module:{path}.out"
        if name in net.map.modules and name != here.path and _same_tokens(net.map.modules[name], place):
            names.append(name)
        path = path.rpartition(".")[0]
    return names


def _same_tokens(info: Any, place: Place) -> bool:
    mine = place.net.map.info(place.site.path)
    lead = 2 if "position" in place.axes else 1
    return info.axes[:lead] == place.axes[:lead] and info.shape[:lead] == mine.shape[:lead] and len(info.axes) > lead


class _Prober:
    """Writes vectors into a part of a site and looks at what later sites become."""

    def __init__(self, place: Place, inputs: Any):
        self.place, self.inputs = place, inputs
        run = place.net.run(inputs, keep=[place.site])
        self.part = run[place.site]
        self.size = float(self.part.float().std(unbiased=False)) or 1.0
        self.tolerance = max(1e-4, 8 * torch.finfo(self.part.dtype).eps)

    def written(self, inputs: Any, value: Tensor, keep: Sequence[str]) -> Run:
        """A run with the part replaced."""
        edit = Custom(self.place.site, fn=lambda part: value.to(part).broadcast_to(part.shape))
        return self.place.net.run(inputs, edits=[edit], keep=keep)

    def linear(self, names: list[str]) -> list[str]:
        """Those of the sites that are affine in the part, token by token, and depend on it."""
        generator = torch.Generator().manual_seed(0)
        one, two = (self.size * torch.randn(self.part.shape, generator=generator) for _ in range(2))
        tokens = torch.rand(self.part.shape[:2] if "position" in self.place.axes else self.part.shape[:1])
        some = tokens.lt(0.5).reshape(*tokens.shape, *[1] * (one.ndim - tokens.ndim))
        writes = [0 * one, one, two, one - 3 * two, torch.where(some, one, two)]
        runs = [self.written(self.inputs, value, names) for value in writes]
        out = []
        for name in names:
            base, *rest = (run[name].double() for run in runs)
            first, second, mixed, apart = (value - base for value in rest)
            if not bool(first.abs().max() > 0):
                continue
            picked = some.reshape(*tokens.shape, *[1] * (first.ndim - tokens.ndim)).to(first.device)
            wrong = torch.stack((mixed - (first - 3 * second), apart - torch.where(picked, first, second))).abs().max()
            if float(wrong) <= self.tolerance * float(mixed.abs().max()):
                out.append(name)
        return out

    def only_way(self, name: str) -> bool:
        """Whether no write reaches the logits while this site is held at its unedited value."""
        net, place = self.place.net, self.place
        plain = net.run(self.inputs, keep=[name])
        noise = self.size * torch.randn(self.part.shape, generator=torch.Generator().manual_seed(1))
        write = Custom(place.site, fn=lambda part: noise.to(part))
        try:
            held = net.run(self.inputs, edits=[write, Patch(name, source="plain")], sources={"plain": plain})
        except OpenworkError:  # a site that cannot be held is none to judge by
            return False
        free = net.run(self.inputs, edits=[write])
        reached, leaked = ((run.logits - plain.logits).float().abs().max() for run in (free, held))
        return bool(leaked <= self.tolerance * max(float(reached), 1e-6))

    def matrices(self, names: list[str]) -> dict[str, Float[np.ndarray, "out channel"]]:
        """The matrix to each of the sites, column by column: what a unit vector at one token adds there."""
        lead = 2 if "position" in self.place.axes else 1
        elements = self.part.shape[lead:].numel()
        rows = max(1, min(elements, SLOTS) // self.part.shape[1:lead].numel())
        inputs = self.inputs.take([0] * rows)
        shape = (rows, *self.part.shape[1:])
        if "position" in self.place.axes:  # the one row may be shorter than the sample was
            shape = (rows, self.place.net.run(inputs, keep=[self.place.site])[self.place.site].shape[1], *shape[2:])
        slots = shape[:lead]
        total = int(np.prod(slots))
        zero = self.written(inputs, torch.zeros(shape), names)
        columns: dict[str, list[Tensor]] = {name: [] for name in names}
        for start in range(0, elements, total):
            count = min(total, elements - start)
            value = torch.zeros(total, elements)
            value[torch.arange(count), torch.arange(start, start + count)] = self.size
            run = self.written(inputs, value.reshape(shape), names)
            for name in names:
                change = (run[name].double() - zero[name].double()).reshape(total, -1)[:count]
                columns[name].append((change / self.size).cpu())
        out = {}
        for name, parts in columns.items():
            whole = torch.cat(parts)
            # heads in one direction: what any of them passes on is read
            heads = whole.reshape(-1, self.part.shape[-1], whole.shape[1]).transpose(1, 2)
            out[name] = heads.flatten(0, 1).numpy()
        return out


def _sensitivity(place: Place, batch: Batch) -> ReadOut:
    """Directions by how the logits at the answers react to them, over the tokens that a swap would write."""
    rows = range(min(SENSED, len(batch)))
    few = Batch(batch.clean.take(rows), batch.corrupted.take(rows), *(getattr(batch, n)[: len(rows)] for n in _LABELS))
    written = place.displacement(few, place.how.base).abs().sum(-1) > 0
    written = written if bool(written.any()) else torch.ones_like(written)
    generator = torch.Generator().manual_seed(0)
    gram = torch.zeros(place.channels, place.channels, dtype=torch.float64)
    for _ in range(max(2, -(-place.channels // int(written.sum())))):
        for inputs in (few.clean, few.corrupted):
            run = place.net.run(inputs, keep=[place.site], grads=_random_readings(few, generator))
            grads = place.last(run.grads[str(place.site)])
            grads = grads[written] if grads.shape[:-1] == written.shape else grads.flatten(0, -2)
            gram += (grads.double().T @ grads.double()).cpu()
    values, vectors = torch.linalg.eigh(gram)
    matrix = values.clamp_min(0).sqrt()[:, None] * vectors.T
    return ReadOut(str(place.site), "the logits", "jacobian", matrix.numpy(), SENSITIVITY)


_LABELS = ("answer", "wrong", "at")


def _random_readings(batch: Batch, generator: torch.Generator) -> Callable[[Run], Tensor]:
    """A random combination of the logits at each answer position, blind to what shifts them all alike."""

    def reading(run: Run) -> Tensor:
        logits = run.logits
        if logits.ndim == 3:
            at = torch.tensor(batch.at, device=logits.device)
            logits = logits[torch.arange(len(batch), device=logits.device), at]
        weights = torch.randn(logits.shape, generator=generator).to(logits)
        return (logits.float() * (weights - weights.mean(-1, keepdim=True)).float()).sum(-1)

    return reading
