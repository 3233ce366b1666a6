"""The study: seven steps from a behaviour to a mechanism that held-out interventions support, or not."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from openwork.errors import TaskFailed
from openwork.evidence import Judgement, record_provenance
from openwork.faithfulness.circuits import Judge
from openwork.faithfulness.components import Component, components_of
from openwork.faithfulness.measure import Meter, mean_values
from openwork.store.files import write_text
from openwork.store.hashing import hash_json, hash_state
from openwork.studies import candidates, clusters, effects, gate, roles, side_effects, validate
from openwork.studies.persist import Folder
from openwork.studies.progress import Reporter
from openwork.studies.schema import Example, ModelRecord, Outcome, Study, TaskRecord, Timestamps
from openwork.studies.settings import StudySettings
from openwork.studies.texts import Texts, read
from openwork.task import Batch, Task

if TYPE_CHECKING:
    from openwork.network import Network

FINDING = "finding.json"
SHOWN_EXAMPLES = 4
ARRAYS = {
    "effects/values": "(method, component, example): effects of components on the find split, in the metric's unit",
    "signature/scores": "(head, role): attention scores",
    "validation/circuit": "(example,): f of the chosen circuit on each held-out example",
    "validation/rivals": "(rival, example): the same of the rivals",
    "validation/random": "(circuit,): mean f of each random circuit",
}


def study(
    net: Network,
    task: Task,
    *,
    text: str | Path | None = None,
    out: str | Path = "study",
    settings: StudySettings | None = None,
    seed: int = 0,
    quiet: bool = False,
    command: str | None = None,
) -> Study:
    """Find the mechanism of a behaviour and judge it. What is done is kept: the same call resumes an interrupted one.

    Args:
        net: an opened network with a tokenizer.
        task: the behaviour.
        text: ordinary text for co-activation, brackets and side effects: the text itself, a path, or None for
            openwork's own source.
        out: the folder for ``study.json``, ``arrays.npz`` and ``finding.json``.
        settings: how much of what.
        seed: of every random choice.
        quiet: no progress on stderr.
        command: how to repeat it; made from the names of network and task unless given.

    Returns:
        The record; `Study.status` is the verdict and `Study.exit_code` goes with it.

    Raises:
        BadInput: if network, task or text cannot be studied (no tokenizer, weights that give NaN, too little text).
        Misaligned: if clean and corrupted examples do not align token by token.
        OutputOccupied: if `out` cannot be written or holds something else.
        CorruptFile: if `out` holds a damaged study.
    """
    settings = settings or StudySettings()
    texts = read(net, text, settings.texts, settings.text_tokens, seed)
    begun = _begin(net, task, texts, settings, seed, command)
    folder = Folder(out, begun.key)
    with Reporter(quiet) as reporter, torch.no_grad():
        return _Steps(net, task, texts, settings, seed, folder, reporter, folder.found or begun).run()


def require_supported(result: Study) -> Study:
    """The study itself, if the network does the task.

    Raises:
        TaskFailed: if it does not.
    """
    if result.status == "cannot do the task":
        assert result.gate is not None
        raise TaskFailed(f"{result.model.name} cannot do {result.task.name}: {result.gate.reason}")
    return result


@dataclass(eq=False)
class _Steps:
    """The steps in order; each reads what it needs from the record, so that any may have been done before."""

    net: Network
    task: Task
    texts: Texts
    settings: StudySettings
    seed: int
    folder: Folder
    reporter: Reporter
    record: Study

    def run(self) -> Study:
        """All seven, or as many as make sense."""
        self._step("gate", self._gate)
        assert self.record.gate is not None
        if not self.record.gate.passed:
            reason = self.record.gate.reason
            return self._finish("cannot do the task", f"{self.net.name} cannot do {self.task.name}: {reason}")
        self._prepare()
        for name, step in (
            ("effects", self._effects),
            ("clusters", self._clusters),
            ("candidates", self._candidates),
            ("validation", self._validate),
            ("roles", self._roles),
            ("side_effects", self._side_effects),
        ):
            self._step(name, step)
        return self._conclude()

    def _step(self, name: str, make: Callable[[], tuple[dict[str, Any], dict[str, np.ndarray]]]) -> None:
        self.reporter.begin(name)
        if getattr(self.record, name) is not None or self.record.status != "running":
            return
        start = time.perf_counter()
        changes, arrays = make()
        if not changes:
            return
        stamps = self.record.timestamps
        stamps = stamps.model_copy(
            update={"updated": _now(), "seconds": stamps.seconds | {name: round(time.perf_counter() - start, 2)}}
        )
        known = self.record.arrays | {key: ARRAYS.get(key, "(query, key): attention of one head") for key in arrays}
        self.record = self.record.model_copy(update={**changes, "arrays": known, "timestamps": stamps})
        self.folder.save(self.record, arrays)

    def _finish(self, status: Outcome, summary: str) -> Study:
        if self.record.status == "running":
            self.record = self.record.model_copy(update={"status": status, "summary": summary})
            self.folder.save(self.record, {})
        return self.record

    def _prepare(self) -> None:
        """What several steps share: the splits, the components and their means. Cheap, so never stored."""
        s = self.settings
        self.components = components_of(self.net)
        self.find = gate.examples_of(self.task, "find", s.examples)
        swept = effects.with_positions(
            gate.examples_of(self.task, "find", min(s.examples, s.sweep_examples)), self.seed
        )
        self.held_out = gate.examples_of(self.task, "held-out", s.examples)
        self.means = mean_values(self.net, self.find.corrupted, self.components)
        self.meter = Meter(self.net, swept, self.task.metric, s.batch_tokens)

    def _judge(self, batch: Batch) -> Judge:
        meter = Meter(self.net, batch, self.task.metric, self.settings.batch_tokens)
        return Judge(meter, self.components, self.settings.ablation, self.means)

    @property
    def _table(self) -> effects.EffectTable:
        assert self.record.effects is not None
        return effects.EffectTable(tuple(self.components), self.folder.arrays["effects/values"], self.record.effects)

    @property
    def _circuit(self) -> tuple[Component, ...]:
        """The chosen circuit; empty if there is none."""
        found = self.record.candidates
        named = {str(c): c for c in self.components}
        chosen = [c for c in found.candidates if c.selected] if found else []
        return tuple(named[node.site] for c in chosen for node in c.nodes)

    def _gate(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return {"gate": gate.check(self.net, self.task, self.settings, self.seed)}, {}

    def _effects(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        table = effects.measure(
            self.net, self.meter, self.components, self.means, self.settings.alpha, self.seed, self.reporter.tick
        )
        return {"effects": table.effects}, {"effects/values": table.values}

    def _clusters(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        signature = self._signature()
        found = clusters.find(
            self.net, self.meter, self.texts, self._table, signature.of(self.components), self.means, self.settings,
            self.seed, self.reporter.tick,
        )  # fmt: skip
        return {"clusters": found}, {"signature/scores": signature.scores}

    def _signature(self) -> roles.Signature:
        return roles.measure(self.net, self.components, self.texts, self.seed)

    def _candidates(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        assert self.record.clusters is not None
        grouped = clusters.component_clusters(self.record.clusters, self.components)
        proposed = candidates.propose(self._table, grouped, candidates.largest(self.components, self.settings))
        judge = self._judge(self.find)
        found = candidates.choose(judge, self._table, proposed, self.settings, self.seed, self.reporter.tick)
        return {"candidates": found}, {}

    def _validate(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        found, circuit = self.record.candidates, self._circuit
        if found is None or found.selected is None:
            return {}, {}
        s, find = self.settings, self._judge(self.find)
        held_out = self._judge(self.held_out)
        hypotheses = validate.rivals(self.net, find, self._table, circuit)
        result, arrays, judgement = validate.validate(
            found.selected, circuit, find, held_out, hypotheses, s, self.seed, self.reporter.tick
        )
        self._write_finding(judgement)
        return {"validation": result}, arrays

    def _write_finding(self, judgement: Judgement) -> None:
        """``finding.json``: the claim with all that is needed to repeat it."""
        study = self.record
        provenance = record_provenance(
            study.model.name,
            study.model.sha256,
            study.task.sha256,
            study.model.device,
            study.model.dtype,
            study.command,
        )
        claim = f"{', '.join(map(str, self._circuit))} carry {study.task.name} in {study.model.name}"
        finding = judgement.finding(claim, self.seed, provenance, study.settings)
        write_text(self.folder.path / FINDING, finding.to_json() + "\n")

    def _roles(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        circuit = self._circuit
        result, named, arrays = roles.record(
            self.net, self._signature(), circuit, self.held_out, self.settings.role_share
        )
        return {"roles": result, "candidates": _with_roles(self.record.candidates, named)}, arrays

    def _side_effects(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        circuit = self._circuit
        if not circuit:
            return {}, {}
        result = side_effects.measure(
            self.net, circuit, self.components, self.texts, self.settings.random_side, self.seed, self.reporter.tick
        )
        return {"side_effects": result}, {}

    def _conclude(self) -> Study:
        found, result = self.record.validation, self.record.candidates
        if found is None:
            assert result is not None
            return self._finish("inconclusive", f"no circuit was found: {result.reason}")
        f, size = found.faithfulness, len(self._circuit)
        summary = (
            f"{found.verdict}: {size} of {len(self.components)} components carry {f.value:.2f} [{f.low:.2f}, "
            f"{f.high:.2f}] of {self.task.name} in {self.net.name} on held-out examples; random circuits of the same "
            f"shape carry {found.random.value:.2f} (p = {found.random.p_value:.2g})"
        )
        return self._finish(found.verdict, summary)


def _with_roles(found: Any, named: dict[str, str]) -> Any:
    if found is None:
        return None
    updated = [
        c.model_copy(update={"nodes": [n.model_copy(update={"role": named.get(n.site)}) for n in c.nodes]})
        for c in found.candidates
    ]
    return found.model_copy(update={"candidates": updated})


def _begin(net: Network, task: Task, texts: Texts, settings: StudySettings, seed: int, command: str | None) -> Study:
    weights = hash_state(net.module.state_dict())
    data = hashlib.sha256(
        repr(
            (task.name, task.clean, task.corrupted, task.answer, task.wrong, task.at, task.chance,
             sorted(task.held_out), task.metric.name)
        ).encode()
    ).hexdigest()  # fmt: skip
    version = metadata.version("openwork")
    key = hash_json(
        {"settings": settings.to_json(), "seed": seed, "weights": weights, "task": data, "text": texts.sha256,
         "openwork": version}
    )  # fmt: skip
    parameter = next(net.module.parameters())
    heads = [f"blocks.{layer}.attn.z" for layer in range(net.n_blocks)]
    find, held_out = (gate.examples_of(task, split, settings.examples) for split in ("find", "held-out"))
    now = _now()
    return Study(
        openwork=version,
        key=key,
        model=ModelRecord(
            name=net.name,
            sha256=weights,
            parameters=sum(p.numel() for p in net.module.parameters()),
            n_blocks=net.n_blocks,
            heads=[net.parts(site) if site in net.sites else 0 for site in heads],
            dtype=str(parameter.dtype).removeprefix("torch."),
            device=str(parameter.device),
        ),
        task=TaskRecord(
            name=task.name,
            description=task.description,
            metric=task.metric.name,
            unit=task.metric.unit,
            chance=task.chance,
            n_find=len(find),
            n_held_out=len(held_out),
            sha256=data,
            groups=sorted(task.clean.groups),
            examples=[_example(net, batch, i) for batch in (find, held_out) for i in range(SHOWN_EXAMPLES // 2)],
        ),
        text_sha256=texts.sha256,
        text_name=texts.name,
        seed=seed,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        command=command or f"openwork study {net.name} --task {task.name} --seed {seed}",
        settings=settings.to_json(),
        status="running",
        summary="unfinished",
        timestamps=Timestamps(started=now, updated=now, seconds={}),
    )


def _example(net: Network, batch: Batch, row: int) -> Example:
    (answer,), (wrong,) = net.tokens([batch.answer[row]]), net.tokens([batch.wrong[row]])
    return Example(
        split=batch.split,
        clean=net.tokens(list(batch.clean.ids[row])),
        corrupted=net.tokens(list(batch.corrupted.ids[row])),
        answer=answer,
        wrong=wrong,
        at=batch.at[row],
        groups={name: list(rows[row]) for name, rows in batch.clean.groups.items()},
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
