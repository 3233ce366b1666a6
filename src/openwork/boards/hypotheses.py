"""Methods that judge hypotheses, as a scoreboard asks them: the true one, and others of equal size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from openwork.boards.frame import Contender, Terms
from openwork.boards.problem import ASKED, Problem
from openwork.boards.scoring import Answer
from openwork.causal.alignments import Alignment
from openwork.causal.hypothesis import Hypothesis, Step
from openwork.causal.interchange import Interchange, interchange
from openwork.causal.scrub import Scrubbing, scrub
from openwork.results.claims import Standard
from openwork.site import Site, Where

PAIRS, RIVALS, DRAWS = 60, 3, 4
"""Pairs of inputs of an interchange; false hypotheses beside the true one; times each example is scrubbed."""
ANSWER = "answer"
"""The one variable of a network that is known to compute its answer in some way."""
SHARE = 0.8
"""Of the behaviour, that a scrubbed hypothesis has to keep."""


def _scrubbing(problem: Problem, terms: Terms, seed: int) -> Answer:
    standard = Standard(min_share=SHARE, alpha=terms.alpha)
    scores, verdicts = {}, {}
    for name, sites in last_steps(problem).items():
        step = Step("answer", sites, lambda example: example.answer, where=ASKED)
        result = scrub(problem.net, problem.task, Hypothesis([step], ["answer"]), Scrubbing(DRAWS, (), standard, seed))
        if not result.findings:
            continue
        scores[name] = float(result.table["recovered"])
        verdicts[name] = result.findings[0].verdict
    return Answer(scores, verdicts)


def last_steps(problem: Problem) -> dict[str, tuple[Site, ...]]:
    """What the answer is claimed to be read off alone: the true parts, and random others, as many.

    The others are drawn among those that no edge of the known circuit joins to the logits; the draw is the same for
    every method and seed. Of a null, the last layer of the circuit that is tempting and false is there too.
    """
    true = _readers(problem)
    rest = sorted({*problem.components} - {*true})
    rng = np.random.default_rng(0)
    sets = {name_of(true): true} if true else {}
    wrong = problem.member.wrong
    if wrong is not None:
        last = max((node.site.block or 0) for node in wrong.nodes)
        tempting = tuple(sorted(str(node.site) for node in wrong.nodes if node.site.block == last))
        sets[name_of(tempting)] = tempting
    for _ in range(RIVALS if len(rest) >= len(true) > 0 else 0):
        drawn = tuple(sorted(rng.choice(rest, len(true), replace=False).tolist()))
        sets[name_of(drawn)] = drawn
    return {name: tuple(map(Site.parse, sites)) for name, sites in sets.items()}


def _readers(problem: Problem) -> tuple[str, ...]:
    """The components that the logits read, by the known circuit."""
    edges = problem.member.known.edges
    return tuple(sorted(str(edge.sender) for edge in edges if edge.receiver == Site("logits")))


def name_of(sites: Sequence[str]) -> str:
    """A set of sites as one item."""
    return " + ".join(sites)


def _no_last_step(problem: Problem) -> str:
    true = _readers(problem)
    if problem.member.wrong is not None:
        return "" if {*true} <= {*problem.components} else "the logits read the embedding"
    if not true:
        return "it is not known what the logits read"
    if not {*true} <= {*problem.components} or len(problem.components) < 2 * len(true):
        return "there are not as many other components to compare with"
    return ""


def _interchanging(problem: Problem, terms: Terms, seed: int) -> Answer:
    alignments = alignments_of(problem)
    method = Interchange(PAIRS, Standard(alpha=terms.alpha), seed)
    result = interchange(problem.net, problem.task, model_of(problem), list(alignments.values()), method)
    table = result.table.sel(split="held-out")
    gained = (table["accuracy_changed"] - table["unedited"]).to_numpy()
    scores = dict(zip(alignments, map(float, np.nan_to_num(gained)), strict=False))
    return Answer(scores).with_claims(result.findings, list(alignments))


def alignments_of(problem: Problem) -> dict[str, Alignment]:
    """Each variable of the program where it is written, and where another one is; of a null, the answer everywhere."""
    spaces = problem.variables
    if not spaces:
        where, named = problem.subspaces.where, problem.subspaces.named
        return {
            aligned(ANSWER, name): Alignment(ANSWER, space.site, Where(group=where), space.array.numpy())
            for name, space in named.items()
        }
    names = list(spaces)
    found = {}
    for number, name in enumerate(names):
        other = names[(number + 1) % len(names)]
        for place in dict.fromkeys((name, other)):
            direction = spaces[place]
            found[aligned(name, place)] = Alignment(name, direction.site, None, direction.array.numpy())
    return found


def true_alignments(problem: Problem) -> frozenset[str]:
    """Those that are right."""
    if problem.variables:
        return frozenset(aligned(name, name) for name in problem.variables)
    return frozenset(aligned(ANSWER, name) for name in problem.subspaces.true)


def aligned(variable: str, place: str) -> str:
    """A variable at the place of one."""
    return f"{variable} where {place} is"


def model_of(problem: Problem) -> Callable[[Any, Any], int]:
    """The program as a high-level model of token ids, asked where the task asks; of a null, its answer alone."""
    program, algorithm = problem.member.program, problem.member.algorithm
    assert algorithm is not None
    if program is None:
        return lambda ids, note: note(ANSWER, algorithm(ids)[-1])
    words = tuple(program.domain.words)
    task = problem.task
    asked = {tuple(row): at for side in (task.clean, task.corrupted) for row, at in zip(side.ids, task.at, strict=True)}

    def model(ids: Any, note: Callable[[str, Any], Any]) -> int:
        row = [words[i] for i in ids]
        plain = program.interpret(row)
        noted = {name: note(name, values) for name, values in plain.items() if name in problem.variables}
        changed = {name: values for name, values in noted.items() if values != plain[name]}
        run = program.interpret(row, changed) if changed else plain
        return words.index(program.word(run[program.output.name][asked[tuple(ids)]]))

    return model


HYPOTHESES = {
    "scrub": Contender(
        "exchanges all that a hypothesis of the last step calls the same", "hypotheses", _scrubbing,
        lambda problem: frozenset({name_of(_readers(problem))}) - {""}, _no_last_step,
    ),
    "interchange": Contender(
        "swaps a variable in program and network alike", "alignments", _interchanging,
        true_alignments,
        lambda problem: "" if problem.member.algorithm and len(alignments_of(problem)) > 1 else (
            "no algorithm and places of several variables are known"
        ),
    ),
}  # fmt: skip
