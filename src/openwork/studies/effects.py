"""Step 2: what each head, MLP and residual position does to the metric, with matched controls beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from openwork.edit import Patch
from openwork.faithfulness.components import Component
from openwork.faithfulness.measure import Base, Cell, Meter, Tick, patch, set_to, silent
from openwork.site import Site, Where
from openwork.studies.estimates import control, estimate, p_values, q_values
from openwork.studies.schema import Control, Effect, Effects, PositionEffect
from openwork.task import Batch, Inputs

if TYPE_CHECKING:
    from openwork.network import Network

METHODS = ("mean ablation", "noising", "denoising")
OTHERS = "the other components of its kind"
ROTATED = "change of equal norm in a random direction"
ELSEWHERE = "other positions"
RANDOM_POSITION = "random positions, equally many"
MARK, RANDOM = "study:", " (random)"


@dataclass(frozen=True)
class EffectTable:
    """Effects of every component on every example of the find split.

    Args:
        components: one a row.
        values: (method, component, example) in the metric's unit, positive where the component helps.
        effects: the same as records, with intervals and controls.
    """

    components: tuple[Component, ...]
    values: np.ndarray
    effects: Effects

    def mean(self, method: str) -> dict[Component, float]:
        """The mean effect of each component."""
        return dict(zip(self.components, self.values[METHODS.index(method)].mean(1).tolist(), strict=True))

    def significant(self, method: str) -> set[Component]:
        """Components that help beyond what the false-discovery rate allows by chance."""
        named = {str(c): c for c in self.components}
        return {
            named[e.site]
            for e in self.effects.components
            if e.method == method and e.significant and e.effect.value > 0
        }


def with_positions(batch: Batch, seed: int) -> Batch:
    """The batch with its positions in named groups that share none, and as many random positions beside each.

    The groups are the answer's position, those that the task names, and all others; a position that two name belongs
    to the first of them. A group that is empty in some row is left out. They are marked by `MARK` and `RANDOM`.
    """
    named = {"last": tuple((at,) for at in batch.at)}
    named |= {name: rows for name, rows in batch.clean.groups.items() if name not in ("last", "first")}
    taken: list[set[int]] = [set() for _ in batch.at]
    found: dict[str, tuple[tuple[int, ...], ...]] = {}
    for name, rows in named.items():
        left = tuple(tuple(p for p in row if p not in taken[i]) for i, row in enumerate(rows))
        if all(left):
            found[MARK + name] = left
            for i, row in enumerate(left):
                taken[i] |= set(row)
    rest = tuple(tuple(p for p in range(at + 1) if p not in taken[i]) for i, at in enumerate(batch.at))
    if all(rest):
        found[MARK + ELSEWHERE] = rest
    for name, rows in list(found.items()):
        if (other := _random_positions(rows, batch.at, seed)) is not None:
            found[name + RANDOM] = other
    clean, corrupted = (Inputs(i.ids, i.groups | found) for i in (batch.clean, batch.corrupted))
    return replace(batch, clean=clean, corrupted=corrupted)


def _random_positions(
    rows: Sequence[Sequence[int]], at: Sequence[int], seed: int
) -> tuple[tuple[int, ...], ...] | None:
    """As many positions of each row that are not among them; None where a row has too few."""
    rng = np.random.default_rng(seed)
    out = []
    for row, last in zip(rows, at, strict=True):
        free = [p for p in range(last + 1) if p not in set(row)]
        if len(free) < len(row):
            return None
        out.append(tuple(sorted(int(p) for p in rng.choice(free, len(row), replace=False))))
    return tuple(out)


def measure(
    net: Network,
    meter: Meter,
    components: Sequence[Component],
    means: dict[str, Tensor],
    alpha: float,
    seed: int,
    tick: Tick = silent,
) -> EffectTable:
    """Effects of components and of residual positions, with intervals, controls and corrected p-values.

    Args:
        net: the network.
        meter: on the find split, its batch made by `with_positions`.
        components: which ones.
        means: path -> mean value, for mean ablation.
        alpha: false-discovery rate, over all components and methods, and over all residual cells.
        seed: of intervals, random directions and random positions.
        tick: told the share that is done.
    """
    sign = 1.0 if meter.metric.higher_is_better else -1.0
    clean, corrupted, same = sign * meter.measure([Cell(), Cell(base="corrupted"), Cell(patch(components, "clean"))])
    bases: dict[Base, np.ndarray] = {"clean": clean, "corrupted": corrupted}
    cells = [Cell(set_to([c], means)) for c in components]
    cells += [Cell(patch([c], "corrupted")) for c in components]
    cells += [Cell(patch([c], "clean"), "corrupted") for c in components]
    rotated = [_rotated_component(meter, c, seed) for c in components]
    measured = sign * meter.measure([*cells, *rotated], lambda share: tick(share * 0.55))
    n = len(components)
    values = np.stack([clean - measured[:n], clean - measured[n : 2 * n], measured[2 * n : 3 * n] - corrupted])
    records = _component_records(components, values, clean - measured[3 * n :], alpha, seed)
    layers, positions, residual = _residual(net, meter, bases, sign, alpha, seed, lambda s: tick(0.55 + 0.45 * s))
    effects = Effects(
        clean=estimate(sign * clean, seed),
        corrupted=estimate(sign * corrupted, seed),
        identity=float(np.abs(same - clean).max()),
        components=records,
        layers=layers,
        positions=positions,
        residual=residual,
    )
    return EffectTable(tuple(components), values, effects)


def _component_records(
    components: Sequence[Component], values: np.ndarray, rotated: np.ndarray, alpha: float, seed: int
) -> list[Effect]:
    p = p_values(values.reshape(-1, values.shape[2])).reshape(values.shape[:2])
    q = q_values(p.reshape(-1)).reshape(p.shape)
    out = []
    for m, method in enumerate(METHODS):
        for i, c in enumerate(components):
            own = values[m, i]
            others = [j for j, d in enumerate(components) if d.kind == c.kind and j != i]
            near = [j for j in others if components[j].layer == c.layer] or others
            controls = [control(OTHERS, values[m, near].mean(0), own, seed)] if near else []
            if method == "noising":
                controls.append(control(ROTATED, rotated[i], own, seed))
            out.append(
                Effect(
                    site=str(c),
                    kind=c.kind,
                    layer=c.layer,
                    index=c.index if c.kind == "head" else None,
                    method=method,
                    effect=estimate(own, seed),
                    p_value=float(p[m, i]),
                    q_value=float(q[m, i]),
                    significant=bool(q[m, i] <= alpha),
                    controls=controls,
                )
            )
    return out


def _residual(
    net: Network, meter: Meter, bases: dict[Base, np.ndarray], sign: float, alpha: float, seed: int, tick: Tick
) -> tuple[list[int], list[str], list[PositionEffect]]:
    """Noising and denoising of the residual stream at each layer and named position."""
    groups = {name: rows for name, rows in meter.batch.clean.groups.items() if name.startswith(MARK)}
    sites = [f"blocks.{layer}.resid_pre" for layer in range(net.n_blocks)]
    sites.append(f"blocks.{net.n_blocks - 1}.resid_post")
    layers = [layer for layer, site in enumerate(sites) if site in net.sites]
    keys = [(layer, name) for layer in layers for name in groups if not name.endswith(RANDOM)]
    if not keys:
        return [], [], []
    cells: list[Cell] = []
    for layer, name in keys:
        site = sites[layer]
        for group in (name, name + RANDOM):
            if group in groups:
                cells.append(Cell((Patch(Site(site), Where(group=group), source="corrupted"),)))
                cells.append(Cell((Patch(Site(site), Where(group=group), source="clean"),), "corrupted"))
        cells.append(_rotated_positions(meter, site, groups[name], seed))
    measured = iter(sign * meter.measure(cells, tick))
    table_rows: list[tuple[int, str, str, np.ndarray, list[tuple[str, np.ndarray]]]] = []
    for layer, name in keys:
        noise, denoise = bases["clean"] - next(measured), next(measured) - bases["corrupted"]
        beside: dict[str, list[tuple[str, np.ndarray]]] = {"noising": [], "denoising": []}
        if name + RANDOM in groups:
            beside["noising"].append((RANDOM_POSITION, bases["clean"] - next(measured)))
            beside["denoising"].append((RANDOM_POSITION, next(measured) - bases["corrupted"]))
        beside["noising"].append((ROTATED, bases["clean"] - next(measured)))
        shown = name.removeprefix(MARK)
        table_rows += [(layer, shown, "noising", noise, beside["noising"])]
        table_rows += [(layer, shown, "denoising", denoise, beside["denoising"])]
    table = np.stack([row[3] for row in table_rows])
    p = p_values(table)
    q = q_values(p)
    out = []
    for i, (layer, name, method, own, others) in enumerate(table_rows):
        controls: list[Control] = [control(kind, values, own, seed) for kind, values in others]
        out.append(
            PositionEffect(
                site=sites[layer],
                layer=layer,
                position=name,
                method=method,
                effect=estimate(own, seed),
                p_value=float(p[i]),
                q_value=float(q[i]),
                significant=bool(q[i] <= alpha),
                controls=controls,
            )
        )
    return layers, list(dict.fromkeys(row[1] for row in table_rows)), out


def _rotation(size: int, seed: int) -> Tensor:
    """A random rotation: (size, size), orthogonal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0].float()


def _rotated_component(meter: Meter, component: Component, seed: int) -> Cell:
    """Clean, with this component changed as much as noising would change it, in a random direction."""
    path, index = component.site.path, component.index

    def change(value: Tensor) -> Tensor:
        delta = meter.difference(path).to(value)
        part = delta[:, :, index] if component.kind == "head" else delta
        turned = part @ _rotation(part.shape[-1], seed).to(value)
        value = value.clone()
        (value[:, :, index] if component.kind == "head" else value).add_(turned)
        return value

    return Cell(change=(path, change))


def _rotated_positions(meter: Meter, site: str, rows: Sequence[Sequence[int]], seed: int) -> Cell:
    """Clean, with the residual stream at some positions changed as much as noising would, in a random direction."""

    def change(value: Tensor) -> Tensor:
        delta = meter.difference(site).to(value)
        turned = delta @ _rotation(delta.shape[-1], seed).to(value)
        value = value.clone()
        for i, positions in enumerate(rows):
            value[i, list(positions)] += turned[i, list(positions)]
        return value

    return Cell(change=(site, change))
