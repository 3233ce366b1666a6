"""The record of a study, `study.json`: what each of the seven steps measured. Reports are drawn from it alone.

A step that has not run is None. Numbers are in the unit of the task's metric unless a field says otherwise. Large
tables lie in ``arrays.npz`` next to it, under the names that `Study.arrays` lists.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

VERSION = 1

Outcome = Literal["running", "supported", "rejected", "inconclusive", "cannot do the task"]

EXIT_CODES: dict[str, int] = {
    "supported": 0, "running": 1, "cannot do the task": 3, "rejected": 4, "inconclusive": 4,
}  # fmt: skip


class Record(BaseModel):
    """Base of all records: immutable, and no field may be unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Estimate(Record):
    """A mean with its confidence interval."""

    value: float
    low: float
    high: float
    level: float = 0.95
    n: int


class Control(Record):
    """What the same measurement gives where the claim does not hold.

    `name` says what was randomised, `value` is its mean and `p_value` the evidence against equality with it.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    p_value: float | None = None


class ModelRecord(Record):
    """The network: `sha256` of its weights, sizes, and the numerics it ran in."""

    name: str
    sha256: str
    parameters: int
    n_blocks: int
    heads: list[int] = Field(description="heads of each block; 0 where a block has none")
    dtype: str
    device: str


class TaskRecord(Record):
    """The behaviour and its data; the texts are decoded examples for the reader."""

    name: str
    description: str
    metric: str
    unit: str
    chance: float
    n_find: int
    n_held_out: int
    sha256: str
    groups: list[str]
    examples: list[Example] = []


class Example(Record):
    """One pair, token by token."""

    split: str
    clean: list[str]
    corrupted: list[str]
    answer: str
    wrong: str
    at: int
    groups: dict[str, list[int]] = {}


class GateSplit(Record):
    """Accuracy on one split with its Wilson interval."""

    split: str
    accuracy: Estimate
    clean: Estimate
    corrupted: Estimate
    passed: bool


class Gate(Record):
    """Step 1: does the network do the task? `needed` is what the lower end of each interval has to exceed."""

    chance: float
    margin: float
    needed: float
    splits: list[GateSplit]
    passed: bool
    reason: str


class Effect(Record):
    """Step 2: what one intervention on one component does to the metric.

    `method` is ``mean ablation``, ``resample ablation``, ``noising`` (clean run, component from the corrupted run) or
    ``denoising`` (corrupted run, component from the clean run). The value is always the component's *share in the
    behaviour*: what is lost by removing it or gained by restoring it; positive means that it helps.
    """

    site: str
    kind: Literal["head", "mlp"]
    layer: int
    index: int | None
    method: str
    effect: Estimate
    p_value: float
    q_value: float
    significant: bool
    controls: list[Control]


class PositionEffect(Record):
    """Step 2: the effect of the residual stream before a block (``layer`` = n_blocks: after the last) at a position."""

    site: str
    layer: int
    position: str
    method: str
    effect: Estimate
    p_value: float
    q_value: float
    significant: bool
    controls: list[Control]


class Effects(Record):
    """Step 2. `clean` and `corrupted` are the metric of the unedited runs on the find split.

    `identity` is the largest change that writing the same run's own values made to any example (0 but for rounding).
    `layers` and `positions` give the axes of the heat map.
    """

    clean: Estimate
    corrupted: Estimate
    identity: float
    components: list[Effect]
    layers: list[int]
    positions: list[str]
    residual: list[PositionEffect]


class Cluster(Record):
    """Members that are active together. `cohesion` is their mean pairwise similarity; `p_value` is against the best
    cluster of shuffled activations; `stability` the mean best-match Jaccard index over resamples."""

    name: str
    members: list[str]
    cohesion: float
    p_value: float
    stability: float
    interesting: bool
    effect: float | None = Field(
        default=None, description="what the metric loses on the find split without the members"
    )
    tokens: list[str] = Field(default=[], description="the tokens on which the members are most active together")


class Clustering(Record):
    """Step 3: one clustering of units, heads or components.

    `statistic` is the mean over items of their cluster's cohesion (0 for an item that belongs to none); its null comes
    from as many shuffles as `null.n` says. `stability` is the adjusted Rand index with each resample.
    """

    of: Literal["units", "heads", "components"]
    by: str
    n_items: int
    n_observations: int
    n_clusters: int
    statistic: float
    null: Control
    p_value: float
    stability: Estimate
    interesting: bool
    clusters: list[Cluster]


class Clusters(Record):
    """Step 3."""

    clusterings: list[Clustering]


class NodeRecord(Record):
    """A node of a circuit. `score` is its effect on the find split; `role` is filled in by step 6."""

    site: str
    kind: Literal["head", "mlp"]
    layer: int
    index: int | None
    score: float
    role: str | None = None


class EdgeRecord(Record):
    """How much of the sender's effect passes through the receiver (``logits``: past all other nodes)."""

    sender: str
    receiver: str
    score: Estimate
    p_value: float
    q_value: float
    significant: bool


class Candidate(Record):
    """Step 4: one hypothesis, judged on the find split only."""

    name: str
    how: str
    nodes: list[NodeRecord]
    faithfulness: float
    completeness: float
    selected: bool


class Candidates(Record):
    """Step 4. `edges` are those of the selected candidate."""

    candidates: list[Candidate]
    selected: str | None
    edges: list[EdgeRecord]
    reason: str


class Rival(Record):
    """A simpler hypothesis. `difference` is circuit minus rival in the fit 1 − |1 − f|, paired on examples."""

    name: str
    nodes: list[str]
    faithfulness: Estimate
    difference: Estimate
    p_value: float
    best: bool


class Criterion(Record):
    """One condition of the verdict: what was asked, what was found."""

    name: str
    asked: str
    found: str
    passed: bool | None


class Validation(Record):
    """Step 5, on the held-out split.

    faithfulness f(C) = (m(C) − m(∅)) / (m(M) − m(∅)), where components outside C carry the values of the run named
    in `ablation`; completeness = 1 − f(M∖C).
    """

    circuit: str
    ablation: str
    full: Estimate
    empty: Estimate
    faithfulness: Estimate
    completeness: Estimate
    random: Control
    random_quantiles: dict[str, float]
    n_distinct: int = Field(description="different circuits among the random ones")
    profile: str
    rivals: list[Rival]
    detectable: float = Field(description="smallest difference in faithfulness that n examples would have shown")
    verdict: Outcome
    criteria: list[Criterion]
    reason: str


class RoleScore(Record):
    """One score of one head; `threshold` is the larger of the null's quantile and the least share that counts."""

    role: str
    score: float
    null: float
    threshold: float
    p_value: float
    passed: bool


class Role(Record):
    """Step 6: the name that a head earned, or None, with all its scores."""

    site: str
    layer: int
    index: int
    role: str | None
    in_circuit: bool
    scores: list[RoleScore]


class AttentionExample(Record):
    """Attention of one head over one real text: (query, key) weights lie in ``arrays.npz`` under `array`."""

    site: str
    tokens: list[str]
    array: str


class Roles(Record):
    """Step 6."""

    definitions: dict[str, str]
    least: float
    heads: list[Role]
    attention: list[AttentionExample]


class SideEffect(Record):
    """Step 7: loss in nats per token on one slice of ordinary text, with the circuit knocked out and without."""

    slice: str
    n_tokens: int
    loss: float
    change: Estimate
    random: Control


class SideEffects(Record):
    """Step 7."""

    ablation: str
    n_texts: int
    slices: list[SideEffect]


class Timestamps(Record):
    """The only part that differs between two runs of the same study."""

    started: str
    updated: str
    seconds: dict[str, float]


class Study(Record):
    """The whole study."""

    schema_version: Literal[1] = VERSION
    openwork: str
    key: str = Field(description="hash of settings, seed, weights, task and text: what decides whether it resumes")
    model: ModelRecord
    task: TaskRecord
    text_sha256: str
    text_name: str
    seed: int
    threads: int
    torch: str
    command: str
    settings: dict[str, float | int | str | bool | list[int]]
    status: Outcome
    summary: str
    gate: Gate | None = None
    effects: Effects | None = None
    clusters: Clusters | None = None
    candidates: Candidates | None = None
    validation: Validation | None = None
    roles: Roles | None = None
    side_effects: SideEffects | None = None
    arrays: dict[str, str] = Field(default={}, description="name in arrays.npz -> axes and meaning")
    timestamps: Timestamps

    @property
    def exit_code(self) -> int:
        """0 supported, 1 unfinished, 3 the network cannot do the task, 4 rejected or inconclusive."""
        return EXIT_CODES[self.status]


TaskRecord.model_rebuild()
