"""A finding: one claim with its estimate, interval, control, verdict and everything needed to repeat it."""

from __future__ import annotations

import html
import json
import math
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import total_ordering
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator, model_validator

from openwork.errors import BadInput, CorruptFile

if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA = "openwork/finding"
SCHEMA_VERSION = 1


class Verdict(StrEnum):
    """What the evidence says of a claim. Computed by `openwork.evidence.verdict`, never written by hand."""

    SUPPORTED = "supported"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"


@total_ordering
class Evidence(Enum):
    """How strong the kind of evidence is; the members compare in that order."""

    OBSERVED = "observed"
    INTERVENED = "intervened"
    HELD_OUT = "held-out with controls"

    def __lt__(self, other: Evidence) -> bool:
        if not isinstance(other, Evidence):
            return NotImplemented
        order = list(Evidence)
        return order.index(self) < order.index(other)


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Args:
        estimate: the statistic of the sample itself.
        low: lower end.
        high: upper end.
        level: two-sided confidence, e.g. 0.95.
        n: how many independent examples (or groups of examples) it rests on.
        method: how it was computed, with any departure from the usual way.

    Raises:
        BadInput: ends in the wrong order, or a number that is not finite.
    """

    estimate: float
    low: float
    high: float
    level: float
    n: int
    method: str

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in (self.estimate, self.low, self.high)) or self.low > self.high:
            raise BadInput(f"expected finite low <= high, got {self.estimate} [{self.low}, {self.high}]")
        if not 0 < self.level < 1 or self.n < 1:
            raise BadInput(f"expected 0 < level < 1 and n >= 1, got level {self.level} and n {self.n}")

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class Control:
    """An observed statistic against the same statistic of matched random controls.

    Args:
        kind: what the controls are, e.g. ``random circuits of equal size and layer profile``.
        n: how many there are.
        mean: their mean.
        low: their 2.5th percentile.
        high: their 97.5th percentile.
        p_value: (1 + controls at least as good) / (1 + n).
    """

    kind: str
    n: int
    mean: float
    low: float
    high: float
    p_value: float

    @property
    def exceeding(self) -> int:
        """How many controls were at least as good."""
        return round(self.p_value * (self.n + 1)) - 1

    @property
    def smallest_p(self) -> float:
        """The p-value that beating every control gives: no smaller one can come of this many."""
        return 1 / (self.n + 1)


@dataclass(frozen=True)
class Rival:
    """The best single rival hypothesis, on the same examples.

    Args:
        name: the rival.
        difference: claim minus rival, paired by example.
        p_value: of the paired sign-flip test that the claim is no better.
    """

    name: str
    difference: Interval
    p_value: float


@dataclass(frozen=True)
class Criteria:
    """What a claim must meet, stated before its held-out examples are looked at.

    Args:
        min_effect: the smallest effect that would matter, above 0.
        unit: of the effect.
        alpha: largest accepted rate of false support.
        power: the chance with which `min_effect` must have been detectable before a null counts against a claim.
        min_examples: fewer held-out examples than this support nothing.
        exceedances: how many controls must be expected to reach the claim's rank by chance at `alpha`; with 5, the
            p-value at `alpha` has a relative error below one half, and alpha = 0.01 needs 500 controls.
        needs_rival: whether support demands a rival hypothesis that was beaten.

    Raises:
        BadInput: a knob outside its range.
    """

    min_effect: float
    unit: str
    alpha: float = 0.01
    power: float = 0.8
    min_examples: int = 30
    exceedances: int = 5
    needs_rival: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.min_effect) and self.min_effect > 0):
            raise BadInput(f"min_effect: expected the smallest effect that matters, above 0; got {self.min_effect}")
        if not 0 < self.alpha < 0.5 or not 0.5 <= self.power < 1:
            raise BadInput(f"expected 0 < alpha < 0.5 <= power < 1, got alpha {self.alpha} and power {self.power}")
        if self.min_examples < 2 or self.exceedances < 1:
            raise BadInput(
                f"expected min_examples >= 2 and exceedances >= 1, got {self.min_examples} and {self.exceedances}"
            )

    @property
    def controls_needed(self) -> int:
        """How many controls a p-value of `alpha` needs."""
        return math.ceil(self.exceedances / self.alpha)

    @property
    def level(self) -> float:
        """Two-sided level whose lower end alone is wrong at most `alpha` of the time."""
        return 1 - 2 * self.alpha


class Provenance(BaseModel):
    """What ran, on what, with what: enough to run it again.

    Args:
        model: name or path.
        model_hash: of the weights.
        data_hash: of the examples.
        code_hash: of the installed openwork source.
        openwork: its version.
        python: version of the interpreter.
        torch: its version.
        device: e.g. ``cpu`` or ``cuda:0 NVIDIA …``.
        dtype: of the weights.
        threads: that torch computed with.
        command: to repeat it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str
    model_hash: str
    data_hash: str
    code_hash: str
    openwork: str
    python: str
    torch: str
    device: str
    dtype: str
    threads: int = Field(ge=1)
    command: str


class Finding(BaseModel):
    """One claim and what speaks for and against it.

    Args:
        claim: in words.
        estimate: the effect.
        unit: of estimate, interval, control and rival.
        interval: of the estimate, where it has one.
        p_value: of the paired test that the effect is no larger than the criterion.
        control: the estimate against matched random controls.
        rival: the claim against the best rival hypothesis.
        detectable: smallest excess over the criterion that this many examples could have shown.
        n: number of examples.
        split: the examples the thing was found on, or ones held out.
        evidence: observed, intervened, or held-out with controls.
        criteria: what the claim had to meet.
        verdict: computed from all of these.
        reasons: why.
        settings: of the method, as JSON values.
        seed: of every random choice.
        provenance: model, data, code and machine.

    Raises:
        pydantic.ValidationError: a field of the wrong kind, or fields that contradict each other: held-out evidence
            without a control, support without held-out evidence and an interval, an interval of another estimate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: str = Field(min_length=1)
    estimate: FiniteFloat
    unit: str
    interval: Interval | None = None
    p_value: Annotated[float, Field(gt=0, le=1)] | None = None
    control: Control | None = None
    rival: Rival | None = None
    detectable: FiniteFloat | None = None
    n: int = Field(ge=1)
    split: Literal["find", "held-out"]
    evidence: Evidence
    criteria: Criteria | None = None
    verdict: Verdict
    reasons: tuple[str, ...] = Field(min_length=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: int
    provenance: Provenance

    @field_validator("settings")
    @classmethod
    def _settings_are_json(cls, settings: dict[str, Any]) -> dict[str, Any]:
        try:
            return json.loads(json.dumps(settings, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise BadInput(f"settings: expected JSON values with finite numbers, got {settings!r} ({error})") from error

    @model_validator(mode="after")
    def _consistent(self) -> Finding:
        if self.interval is not None and self.interval.estimate != self.estimate:
            raise BadInput(f"expected the interval of estimate {self.estimate}, got that of {self.interval.estimate}")
        if self.evidence is Evidence.HELD_OUT and (self.control is None or self.split != "held-out"):
            raise BadInput(f"evidence {self.evidence.value!r} needs a control and the held-out split")
        if self.verdict is Verdict.SUPPORTED and (self.evidence is not Evidence.HELD_OUT or self.interval is None):
            raise BadInput("a supported claim needs an interval on held-out examples with controls")
        return self

    def to_json(self) -> str:
        """The finding as JSON with its schema and version; the same finding always gives the same text."""
        body = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **self.model_dump(mode="json")}
        return json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Finding:
        """Read what `to_json` wrote.

        Raises:
            CorruptFile: not JSON, another kind of document, an unknown schema version, or fields that do not hold.
        """
        try:
            body = json.loads(text)
        except json.JSONDecodeError as error:
            raise CorruptFile(f"expected a finding as JSON, got text that does not parse: {error}") from error
        if not isinstance(body, dict) or body.pop("schema", None) != SCHEMA:
            raise CorruptFile(f"expected a JSON object with schema {SCHEMA!r}, got another document")
        version = body.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise CorruptFile(
                f"expected {SCHEMA} version {SCHEMA_VERSION}, got {version!r}; read it with the openwork that wrote "
                "it, or update this one"
            )
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise CorruptFile(
                f"expected a finding of schema version {version}, got fields that fail: {error}"
            ) from error

    def rows(self) -> list[tuple[str, str]]:
        """Label and text of each line that a person reads, safe for a terminal, not escaped for HTML."""
        rows = [("claim", self.claim), ("verdict", f"{self.verdict} ({self.evidence.value})")]
        rows += [("because", reason) for reason in self.reasons]
        if self.interval is None:
            rows.append(("effect", f"{self.estimate:.3g} {self.unit}, n = {self.n}, {self.split}"))
        else:
            level = f"{100 * self.interval.level:.4g} % interval, {self.interval.method}"
            rows.append(("effect", f"{self.interval} {self.unit}, n = {self.n}, {self.split} ({level})"))
        if self.p_value is not None:
            rows.append(("p-value", f"{self.p_value:.3g}"))
        if self.control is not None:
            c = self.control
            text = f"{c.n} {c.kind}: mean {c.mean:.3g}, 95 % within [{c.low:.3g}, {c.high:.3g}], p = {c.p_value:.3g}"
            rows.append(("control", text))
        if self.rival is not None:
            text = f"{self.rival.name}: difference {self.rival.difference}, p = {self.rival.p_value:.3g}"
            rows.append(("rival", text))
        if self.settings:
            rows.append(("settings", json.dumps(self.settings, ensure_ascii=False)))
        p = self.provenance
        rows.append(("model", f"{p.model} ({p.dtype}, {p.device}), seed {self.seed}"))
        rows.append(("repeat", p.command))
        return [(label, _printable(text)) for label, text in rows]

    def __str__(self) -> str:
        return _printable(f"{self.verdict}: {self.claim} ({self.interval or f'{self.estimate:.3g}'} {self.unit})")

    def _repr_html_(self) -> str:
        cells = (f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in self.rows())
        return f'<table class="openwork-finding {self.verdict.value}"><tbody>{"".join(cells)}</tbody></table>'

    def __rich__(self) -> RenderableType:
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        colour = {Verdict.SUPPORTED: "green", Verdict.REJECTED: "red", Verdict.INCONCLUSIVE: "yellow"}[self.verdict]
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for label, text in self.rows():
            # Text, not str: a claim may quote tokens such as [/b] that would be read as markup
            table.add_row(label, Text(text, style=f"bold {colour}" if label == "verdict" else ""))
        return Panel(table, title="finding", border_style=colour, expand=False)


def _printable(text: str) -> str:
    """Escape control characters: a quoted token must not move the cursor or reverse the line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
