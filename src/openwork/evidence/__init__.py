"""Statistics of claims: intervals, permutation and control tests, power, and the verdict computed from them."""

from openwork.evidence.comparisons import benjamini_hochberg
from openwork.evidence.controls import random_control_test
from openwork.evidence.intervals import (
    bootstrap_interval,
    paired_difference_interval,
    ratio_interval,
    studentised_interval,
    wilson_interval,
)
from openwork.evidence.permutation import SignFlip, sign_flip_test
from openwork.evidence.power import examples_needed, minimum_detectable_effect
from openwork.evidence.provenance import code_hash, record_provenance
from openwork.evidence.samples import by_group
from openwork.evidence.verdicts import Judgement, Measurement, judge, verdict

__all__ = [
    "Judgement",
    "Measurement",
    "SignFlip",
    "benjamini_hochberg",
    "bootstrap_interval",
    "by_group",
    "code_hash",
    "examples_needed",
    "judge",
    "minimum_detectable_effect",
    "paired_difference_interval",
    "random_control_test",
    "ratio_interval",
    "record_provenance",
    "sign_flip_test",
    "studentised_interval",
    "verdict",
    "wilson_interval",
]
