"""Runs in which a hypothesis's steps, and whatever they do not read, come from other examples.

Source: Chan et al. 2022, Causal Scrubbing (the algorithm ``run_scrub``).
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from openwork.causal.hypothesis import Hypothesis, Step, examples_of
from openwork.edit import Patch
from openwork.errors import BadInput
from openwork.network import measure
from openwork.network.run import Run
from openwork.network.sweep import plain
from openwork.site import Site
from openwork.task import Batch, Metric

if TYPE_CHECKING:
    from openwork.network import Network

REST = ("embed", "blocks.*.attn.z", "blocks.*.mlp.out", "blocks.*.mixer.out")
TOKENS = 1 << 15
"""Tokens of the examples whose activations are held at once."""


def uniforms(seed: int, path: Sequence[str], draw: int, n: int) -> Float[np.ndarray, " n"]:
    """The random numbers that choose the samples of one step: one an example, by its path from the output."""
    return np.random.default_rng((seed, zlib.crc32("/".join(path).encode()), draw)).random(n)


Labels = Mapping[str, Int[np.ndarray, " example"]]
Rows = Int[np.ndarray, "draw example"]


class Exchange:
    """Runs the clean examples of one batch with activations exchanged.

    Args:
        net: the network.
        batch: the examples.
        metric: what is read off.
        hypothesis: which activations may be exchanged.
        rest: sites or patterns of everything that can carry information; the embedding, heads and MLPs unless given.
        seed: of the choice of examples.
    """

    def __init__(
        self, net: Network, batch: Batch, metric: Metric, hypothesis: Hypothesis, rest: Sequence[str], seed: int
    ):
        self.net, self.batch, self.metric, self.hypothesis = net, batch, metric, hypothesis
        self.seed, self.n = seed, len(batch)
        self.rest = _rest(net, rest)
        self.layout = net.preparer.prepare(batch.clean).layout
        self.longest = int(np.argmax(self.layout.lengths))
        paths = {site.path for site in self.rest} | {site.path for step in hypothesis.steps for site in step.sites}
        self.kept = net.run(batch.clean, keep=sorted(paths, key=net.map.order))
        self.examples = examples_of(batch)
        self.labels: Labels = {
            step.name: _numbered([step.label(e) for e in self.examples]) for step in hypothesis.steps
        }

    def model(self) -> Float[np.ndarray, " example"]:
        """The metric of the unedited runs."""
        return plain(self.net, self.batch, self.metric, "clean")

    def random(self, draws: Sequence[int]) -> Float[np.ndarray, "draw example"]:
        """The metric when everything is resampled."""
        return self._measured(draws, [self.labels] * len(draws), (), None, True)

    def output(
        self, draws: Sequence[int], labels: Sequence[Labels], exempt: str | None = None
    ) -> Float[np.ndarray, "draw example"]:
        """The metric of scrubbed runs.

        Args:
            draws: the numbers of the draws.
            labels: the labels of each draw.
            exempt: a step that is always taken from the example itself, unedited.
        """
        return self._measured(draws, labels, self.hypothesis.output, exempt, True)

    def only(self, name: str, draws: Sequence[int], labels: Sequence[Labels]) -> Float[np.ndarray, "draw example"]:
        """The metric of runs in which one step is scrubbed and all else is as ever."""
        return self._measured(draws, labels, (name,), None, False)

    def shuffled(self, name: str, rng: np.random.Generator) -> Int[np.ndarray, " example"]:
        """The labels of one step, in random order."""
        return rng.permutation(self.labels[name])

    def exchange(self, draws: Sequence[int]) -> dict[str, np.ndarray]:
        """For each step how many other examples share a label, and how often a draw takes another one than it had."""
        agreeing, moved = [], []
        own = np.tile(np.arange(self.n), (len(draws), 1))
        for name in self.hypothesis.names:
            pools = self._pools(self.labels[name])
            agreeing.append(np.mean([len(pools[row]) - 1 for row in range(self.n)]))
            moved.append((self._sampled(own, (name,), draws, [self.labels] * len(draws)) != own).mean())
        return {"agreeing": np.array(agreeing), "moved": np.array(moved)}

    def _measured(
        self, draws: Sequence[int], labels: Sequence[Labels], read: Sequence[str], exempt: str | None, random: bool
    ) -> Float[np.ndarray, "draw example"]:
        """The metric of runs in which the output reads some steps, and random examples otherwise if `random`."""
        step = max(1, TOKENS // (self.n * self.layout.width))
        parts = [slice(start, start + step) for start in range(0, len(draws), step)]
        found = [self._part(draws[part], labels[part], read, exempt, random) for part in parts]
        return np.concatenate(found)

    def _part(
        self, draws: Sequence[int], labels: Sequence[Labels], read: Sequence[str], exempt: str | None, random: bool
    ) -> Float[np.ndarray, "draw example"]:
        rows = np.tile(np.arange(self.n), (len(draws), 1))
        edits, sources = self._frozen(rows, (), draws, labels, self.rest) if random else ([], {})
        more, given = self._reads(rows, (), draws, labels, read, exempt)
        cells, runs = [], {}
        for number in range(len(draws)):
            cells.append([replace(edit, source=f"{edit.source} {number}") for edit in (*edits, *more)])
            part = slice(number * self.n, (number + 1) * self.n)
            for name, run in (sources | given).items():
                values = {site: value[part] for site, value in run.values.items()}
                runs[f"{name} {number}"] = Run(None, values, run.layout.take(range(part.start, part.stop)))
        return measure(self.net, self.batch, self.metric, cells, sources=runs).values

    def _frozen(
        self, rows: Rows, path: tuple[str, ...], draws: Sequence[int], labels: Sequence[Labels], sites: Sequence[Site]
    ) -> tuple[list[Patch], dict[str, Run]]:
        """Edits that take some sites from random examples."""
        others = self._sampled(rows, (*path, ""), draws, labels).ravel()
        values = self._unedited([site.path for site in sites], others)
        return [Patch(site, source="rest") for site in sites], {
            "rest": Run(None, values, self.layout.take(others.tolist()))
        }

    def _reads(
        self, rows: Rows, path: tuple[str, ...], draws: Sequence[int], labels: Sequence[Labels], read: Sequence[str],
        exempt: str | None,
    ) -> tuple[list[Patch], dict[str, Run]]:  # fmt: skip
        """Edits that put in the steps that are read, each computed on examples of its label."""
        edits: list[Patch] = []
        sources: dict[str, Run] = {}
        for name in read:
            step, inner = self.hypothesis[name], (*path, name)
            if name == exempt:
                flat, values = rows.ravel(), self._unedited([site.path for site in step.sites], rows.ravel())
            else:
                picked = self._sampled(rows, inner, draws, labels)
                values, flat = self._values(step, picked, inner, draws, labels, exempt)
            edits += [Patch(site, step.where, source=f"step {name}") for site in step.sites]
            sources[f"step {name}"] = Run(None, values, self.layout.take(flat.tolist()))
        return edits, sources

    def _values(
        self, step: Step, rows: Rows, path: tuple[str, ...], draws: Sequence[int], labels: Sequence[Labels],
        exempt: str | None,
    ) -> tuple[dict[str, Tensor], Int[np.ndarray, " row"]]:  # fmt: skip
        """What a step is on some examples, (draw · example, ...) at each of its sites; and which examples ran."""
        paths = [site.path for site in step.sites]
        if not step.inputs:
            return self._unedited(paths, rows.ravel()), rows.ravel()
        others = self._sampled(rows, (*path, ""), draws, labels).ravel()
        edits = [Patch(site, source="rest") for site in self._before(step)]
        rest = self._unedited([edit.site.path for edit in edits], others)
        more, sources = self._reads(rows, path, draws, labels, step.inputs, exempt)
        sources["rest"] = Run(None, rest, self.layout.take(others.tolist()))
        return self._run(others, paths, [*edits, *more], sources), others

    def _before(self, step: Step) -> list[Site]:
        """The sites to freeze for one step: those before its last one that are not its own."""
        order = self.net.map.order
        last = max(order(site.path) for site in step.sites)
        out = []
        for site in self.rest:
            if order(site.path) >= last:
                continue
            own = [mine for mine in step.sites if mine.path == site.path]
            if not own:
                out.append(site)
            elif all(mine.index for mine in own):
                taken = {i for mine in own for i in mine.index}
                parts = site.index or range(self.net.map.info(site.path).parts)
                left = tuple(i for i in parts if i not in taken)
                out += [site[left]] if left else []
        return out

    def _run(
        self, rows: Int[np.ndarray, " row"], paths: list[str], edits: Sequence[Patch], sources: Mapping[str, Run]
    ) -> dict[str, Tensor]:
        """Run some of the examples, a few at a time, as wide as all of them."""
        found: dict[str, list[Tensor]] = {path: [] for path in paths}
        at_once = max(1, TOKENS // self.layout.width)
        for start in range(0, len(rows), at_once):
            part = list(range(start, min(start + at_once, len(rows))))
            count = len(part)
            examples, mine = rows[part].tolist(), edits
            if self.layout.padded:  # the longest example keeps the width, and with it the columns, what they were
                examples.append(self.longest)
                part.append(part[-1])
                mine = [replace(edit, where=replace(edit.where, rows=range(count))) for edit in edits]
            given = {name: _take(run, part) for name, run in sources.items()}
            last = max(paths, key=self.net.map.order)
            run = self.net.run(self.batch.clean.take(examples), keep=paths, edits=mine, sources=given, until=last)
            for path in paths:
                found[path].append(run[path][:count])
        return {path: torch.cat(values) for path, values in found.items()}

    def _unedited(self, paths: Sequence[str], rows: Int[np.ndarray, " row"]) -> dict[str, Tensor]:
        picked = torch.from_numpy(rows)
        return {path: self.kept[path][picked.to(self.kept[path].device)] for path in dict.fromkeys(paths)}

    def _sampled(self, rows: Rows, path: tuple[str, ...], draws: Sequence[int], labels: Sequence[Labels]) -> Rows:
        """For each example another one that agrees with it on the last step of the path; any one if that is empty."""
        out = np.empty_like(rows)
        for i, (draw, given) in enumerate(zip(draws, labels, strict=True)):
            pools = self._pools(given[path[-1]] if path[-1] else np.zeros(self.n, int))
            shares = uniforms(self.seed, path, draw, self.n)
            out[i] = [pools[row][int(share * len(pools[row]))] for row, share in zip(rows[i], shares, strict=True)]
        return out

    def _pools(self, labels: Int[np.ndarray, " example"]) -> dict[int, list[int]]:
        """Row -> the rows of its label and length."""
        classes: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, key in enumerate(zip(labels.tolist(), self.layout.lengths, strict=True)):
            classes[key].append(row)
        return {row: members for members in classes.values() for row in members}


def _rest(net: Network, given: Sequence[str]) -> list[Site]:
    """Everything that can carry information, in order of execution."""
    if given:
        found = {site for pattern in given for site in net.map.resolve(pattern)}
    else:
        kinds = {Site.parse(pattern).kind for pattern in REST}
        found = {Site(name) for name in net.sites if Site.parse(name).kind in kinds}
    if not found:
        raise BadInput(f"expected a network with an embedding, heads or MLPs; {net.name} has none: name rest= by site")
    return sorted(found, key=lambda site: (net.map.order(site.path), site.index))


def _numbered(labels: Sequence[Any]) -> Int[np.ndarray, " example"]:
    """Labels as numbers, equal ones alike.

    Raises:
        BadInput: for a label that cannot be hashed.
    """
    numbers: dict[Any, int] = {}
    try:
        return np.array([numbers.setdefault(label, len(numbers)) for label in labels])
    except TypeError as error:
        raise BadInput(f"expected labels that can be hashed, such as tuples of numbers; {error}") from error


def _take(run: Run, rows: Sequence[int]) -> Run:
    return Run(None, {site: value[list(rows)] for site, value in run.values.items()}, run.layout.take(rows))
