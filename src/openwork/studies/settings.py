"""The knobs of a study."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from openwork.errors import BadInput


@dataclass(frozen=True)
class StudySettings:
    """What a study measures, how much of it, and what it asks before it says "supported".

    Args:
        examples: most examples of each split, for the gate, for choosing the circuit and for judging it.
        sweep_examples: most examples of each split for the long sweeps: effects of components, random circuits.
        margin: accuracy above chance that the lower end of the gate's interval has to reach.
        alpha: false-discovery rate of the effects, and level of the paired test against the rival.
        random_circuits: random circuits of the same size and layer profile.
        random_p: p-value against them that "supported" needs.
        random_margin: a random circuit does as well as the circuit when its faithfulness comes this close: differences
            that are real but too small to matter support nothing.
        ablation: what components outside a circuit carry: the corrupted run's values, or their mean over it.
        find_faithfulness: faithfulness on the find split at which a candidate is large enough.
        least_faithfulness: what the lower end of the held-out interval has to exceed.
        largest_share: largest part of all components that may call itself a circuit.
        units: units clustered, those with the largest variance, equally many of each block.
        shuffles: shuffled activations behind the p-value of a clustering.
        resamples: resamples behind the stability of a clustering.
        texts: rows of real text.
        text_tokens: tokens of each row.
        random_side: random circuits behind the control of the side effects.
        role_share: least share of a head's attention that earns a name.
        batch_tokens: tokens packed into one forward pass.
    """

    examples: int = 64
    sweep_examples: int = 32
    margin: float = 0.1
    alpha: float = 0.05
    random_circuits: int = 500
    random_p: float = 0.01
    random_margin: float = 0.05
    ablation: Literal["corrupted", "mean"] = "mean"
    find_faithfulness: float = 0.85
    least_faithfulness: float = 0.5
    largest_share: float = 0.5
    units: int = 192
    shuffles: int = 59
    resamples: int = 20
    texts: int = 32
    text_tokens: int = 96
    random_side: int = 30
    role_share: float = 0.25
    batch_tokens: int = 8192

    def __post_init__(self) -> None:
        for knob in fields(self):
            if isinstance(knob.default, int) and getattr(self, knob.name) < 2:
                raise BadInput(f"expected {knob.name} to be at least 2; got {getattr(self, knob.name)}")
        for name in ("alpha", "random_p", "largest_share", "role_share"):
            if not 0 < getattr(self, name) < 1:
                raise BadInput(f"expected {name} between 0 and 1; got {getattr(self, name)}")
        if self.ablation not in ("corrupted", "mean"):
            raise BadInput(f"expected ablation to be 'corrupted' or 'mean'; got {self.ablation!r}")
        if 1 / (1 + self.random_circuits) >= self.random_p:
            raise BadInput(
                f"expected more than {1 / self.random_p - 1:.0f} random circuits for a p-value below "
                f"{self.random_p}; got {self.random_circuits}"
            )

    def to_json(self) -> dict[str, Any]:
        """The knobs as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> StudySettings:
        """The settings of which `record` is the JSON form; unknown knobs are refused."""
        known = {item.name for item in fields(cls)}
        if unknown := sorted(set(record) - known):
            raise BadInput(f"expected settings among {sorted(known)}; got {unknown}")
        return cls(**record)
