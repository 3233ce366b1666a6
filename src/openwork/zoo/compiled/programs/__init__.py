"""The programs that the zoo compiles."""

from __future__ import annotations

from collections.abc import Callable

from openwork.zoo.compiled.program import Program
from openwork.zoo.compiled.programs.counting import histogram
from openwork.zoo.compiled.programs.giving import ioi
from openwork.zoo.compiled.programs.ordering import reverse
from openwork.zoo.compiled.programs.recall import induction, two_hop

PROGRAMS: dict[str, Callable[[], Program]] = {
    "histogram": histogram,
    "induction": induction,
    "ioi": ioi,
    "reverse": reverse,
    "two-hop": two_hop,
}
