"""Programs compiled to weights: every head, edge and variable's subspace is known.

compiled = open("ioi")              # one of `names()`
compiled.network                    # an ordinary transformer, without norms
compiled.known                      # roles, edges, looks, and the subspace of every variable
compiled.program.algorithm(row)     # the same in plain Python
compiled.program.task(128)          # clean and corrupted rows
"""

from __future__ import annotations

from openwork.errors import UnknownName
from openwork.zoo.compiled.compile import Compiled, Plan, compile_program
from openwork.zoo.compiled.program import Domain, Program
from openwork.zoo.compiled.programs import PROGRAMS

__all__ = ["Compiled", "Domain", "Plan", "Program", "compile_program", "names", "open"]


def names() -> list[str]:
    """The programs."""
    return sorted(PROGRAMS)


def open(name: str) -> Compiled:
    """A compiled program.

    Args:
        name: of `names`.

    Raises:
        UnknownName: if there is no such program.
    """
    if name not in PROGRAMS:
        raise UnknownName.among("compiled program", name, PROGRAMS)
    return compile_program(PROGRAMS[name]())
