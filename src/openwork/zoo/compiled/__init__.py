"""Programs compiled to weights: every head, edge and variable's subspace is known.

compiled = open("ioi")              # a program of `names()`
compiled.network                    # an ordinary transformer, without norms
compiled.known                      # roles, edges, looks, and the subspace of every variable
compiled.program.algorithm(row)     # the same in plain Python
compiled.program.task(128)          # clean and corrupted rows

hard = open("ioi+distracted+rotated")      # with forms of `FORMS`, harder to read and with the same behaviour
"""

from __future__ import annotations

from openwork.errors import BadInput, UnknownName
from openwork.zoo.compiled.compile import Compiled, Plan, compile_program
from openwork.zoo.compiled.forms import FORMS
from openwork.zoo.compiled.program import Domain, Program
from openwork.zoo.compiled.programs import PROGRAMS

__all__ = ["FORMS", "Compiled", "Domain", "Plan", "Program", "compile_program", "names", "open"]


def names() -> list[str]:
    """The programs."""
    return sorted(PROGRAMS)


def open(name: str) -> Compiled:
    """A compiled program.

    Args:
        name: of `names`, and any of `FORMS` after it, such as ``sort+distracted+rotated``; whatever the order in which
            they are said, they are applied in that of `FORMS`.

    Raises:
        UnknownName: if there is no such program or form.
        BadInput: if a form is named twice.
    """
    program, *said = name.split("+")
    if program not in PROGRAMS:
        raise UnknownName.among("compiled program", program, PROGRAMS)
    for form in said:
        if form not in FORMS:
            raise UnknownName.among("form of a compiled program", form, FORMS)
    if len(set(said)) < len(said):
        raise BadInput(f"expected each form once; got {name!r}")
    compiled = compile_program(PROGRAMS[program]())
    for form, make in FORMS.items():
        if form in said:
            compiled = make().apply(compiled)
    return compiled
