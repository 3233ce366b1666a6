"""The programs that the zoo compiles."""

from __future__ import annotations

from collections.abc import Callable

from openwork.zoo.compiled.program import Program
from openwork.zoo.compiled.programs.arithmetic import addition
from openwork.zoo.compiled.programs.brackets import brackets
from openwork.zoo.compiled.programs.counting import fraction, histogram, most_frequent
from openwork.zoo.compiled.programs.giving import ioi
from openwork.zoo.compiled.programs.ordering import reverse, sort, unique
from openwork.zoo.compiled.programs.recall import induction, two_hop

PROGRAMS: dict[str, Callable[[], Program]] = {
    "addition": addition,
    "brackets": brackets,
    "fraction": fraction,
    "histogram": histogram,
    "induction": induction,
    "ioi": ioi,
    "most-frequent": most_frequent,
    "reverse": reverse,
    "sort": sort,
    "two-hop": two_hop,
    "unique": unique,
}
"""Name -> what makes the program."""
