"""Methods that read: where is each variable of a program readable, and which of them does the network use?"""

from __future__ import annotations

import re

import numpy as np

from openwork.boards.frame import Contender, Terms
from openwork.boards.problem import ASKED, Problem
from openwork.boards.scoring import Answer
from openwork.errors import BadInput
from openwork.finding import Verdict
from openwork.probes import Labelled, Linear, Probing, Sample, Use, control_task, from_program, probe, train, use
from openwork.probes.mdl import Coding, describe
from openwork.results.claims import Standard

READ = "blocks.*.resid_post"
ROWS, PLACES = 160, 1000
EXACT = 0.999
"""Readability from tokens and positions alone at which a variable says nothing about layers."""
DOCUMENTS = 20


def _reading(problem: Problem, terms: Terms, seed: int) -> Answer:
    """Score above the best control of every variable at every site."""
    scores: dict[str, float] = {}
    verdicts: dict[str, Verdict] = {}
    method = Probing(controls=1, claims=0, alpha=terms.alpha, min_documents=DOCUMENTS, seed=seed)
    for name, labelled in _variables(problem, seed).items():
        table = probe(problem.net, labelled, READ, method).table["score"].isel(form=0)
        rest = table.drop_sel(source="probe").max("source")
        for site in map(str, table.coords["site"].values):
            scores[_item(name, site)] = float(table.sel(source="probe", site=site) - rest.sel(site=site))
    return Answer(scores, verdicts)


def _coding(problem: Problem, terms: Terms, seed: int) -> Answer:
    """Compression of every variable at every site, over that of its token alone."""
    scores: dict[str, float] = {}
    method = Coding(claims=0, alpha=terms.alpha, seed=seed)
    for name, labelled in _variables(problem, seed).items():
        if labelled.numeric:
            continue
        table = describe(problem.net, labelled, READ, method).table["compression"]
        for site in map(str, table.coords["site"].values):
            scores[_item(name, site)] = float(
                table.sel(source="online code", site=site) - table.sel(source="token identity", site=site)
            )
    return Answer(scores)


def _using(problem: Problem, terms: Terms, seed: int) -> Answer:
    """What a probe of each variable reads at the last site, swapped between twins: which does the answer depend on?"""
    asked, member = problem.subspaces, problem.member
    assert member.program is not None
    answer = Answer({})
    method = Use(ASKED, ("swap",), Standard(alpha=terms.alpha, min_examples=min(20, terms.examples // 2)), seed)
    for name in asked.named:
        labelled = _task_labels(problem, name)
        if labelled is None:
            continue
        direction = train(problem.net, labelled, asked.site, Linear(), seed).direction
        result = use(problem.net, problem.task, direction, method)
        score = abs(float(result.table["effect"].item()))
        answer |= Answer({name: score}).with_claims(result.findings, [name])
    return answer


def _planted(problem: Problem, terms: Terms, seed: int) -> Answer:
    """The known directions, each removed, swapped and moved along."""
    asked = problem.subspaces
    standard = Standard(alpha=terms.alpha, min_examples=min(20, terms.examples // 2))
    answer = Answer({})
    for name, direction in asked.named.items():
        result = use(problem.net, problem.task, direction, Use(asked.where, standard=standard, seed=seed))
        score = float(np.abs(result.table["effect"]).max())
        answer |= Answer({name: score}).with_claims(result.findings, [name] * len(result.findings))
    return answer


def _variables(problem: Problem, seed: int) -> dict[str, Labelled]:
    """The variables of the program that tokens alone do not give, labelled at every position."""
    program = problem.member.program
    assert program is not None
    found = {}
    for name in problem.variables:
        try:
            labelled = from_program(program, name, Sample(ROWS, PLACES, seed))
            control_task(labelled, seed)
        except BadInput:
            # a variable that is nearly constant in these rows cannot be told from a guess
            continue
        if not _given_by_token(labelled):
            found[name] = labelled
    return found


def _given_by_token(labelled: Labelled) -> bool:
    """Whether the token and its position determine the label, so that it can be read before it is computed."""
    seen: dict[tuple[int, int], set[float]] = {}
    for kind, position, label in zip(labelled.types, labelled.positions, labelled.labels, strict=True):
        seen.setdefault((int(kind), int(position)), set()).add(float(label))
    alone = np.mean([len(labels) == 1 for labels in seen.values()])
    return bool(alone >= EXACT)


def _task_labels(problem: Problem, name: str) -> Labelled | None:
    """A variable at the positions that the task asks about; None where it never varies there."""
    program = problem.member.program
    assert program is not None
    try:
        return from_program(program, name, task=problem.bare)
    except BadInput:
        return None


def _item(variable: str, site: str) -> str:
    return f"{variable} at {site}"


def _true_readings(problem: Problem) -> frozenset[str]:
    """Each variable behind every block from the one that writes it on."""
    return frozenset(
        _item(name, site)
        for name, direction in problem.variables.items()
        for site in problem.net.select(READ)
        if _block(site) >= _block(direction.site.path)
    )


def _block(site: str) -> int:
    """The number of a site's block; -1 before all blocks."""
    found = re.match(r"blocks\.(\d+)\.", site)
    return -1 if found is None else int(found[1])


def _no_program(problem: Problem) -> str:
    if problem.member.program is None:
        return "it was not made from a program, so no variables are known"
    return "" if problem.variables else "where its variables are written is not known"


def _no_subspaces(problem: Problem) -> str:
    known = problem.subspaces
    few = not known.true or len(known.named) < 2
    return _no_program(problem) or ("no variable that the answer depends on is known, and others" if few else "")


def _not_planted(problem: Problem) -> str:
    known = problem.subspaces
    planted = problem.member.program is None and known.true and len(known.named) > 1
    return "" if planted else "no direction is known that is carried and not used"


LINES = {
    "probe": Contender(
        "a linear probe of each variable at each block, above its controls", "readings", _reading, _true_readings,
        _no_program,
    ),
    "MDL probe": Contender(
        "the compression of each variable at each block, above that of the token", "readings", _coding,
        _true_readings, _no_program,
    ),
    "probe, then swap": Contender(
        "swaps what a probe of each variable reads: which of them is used?", "subspaces", _using,
        lambda problem: problem.subspaces.true, _no_subspaces,
    ),
    "use of directions": Contender(
        "removes, swaps and moves along directions that carry the same label: which is used?", "subspaces", _planted,
        lambda problem: problem.subspaces.true, _not_planted,
    ),
}  # fmt: skip
"""Name -> method, for `openwork bench reading`."""
