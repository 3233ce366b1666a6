"""Lines of the reading board on networks whose answer is known."""

from __future__ import annotations

import pytest

from openwork.boards.frame import Terms
from openwork.boards.probing import LINES
from openwork.boards.problem import Problem
from openwork.boards.scoring import scored
from openwork.zoo.member import open_member

TERMS = Terms(examples=48, alpha=0.25)


@pytest.fixture(scope="module")
def sorting() -> Problem:
    return Problem.of(open_member("compiled/sort"), TERMS.examples, 0)


@pytest.fixture(scope="module")
def planted() -> Problem:
    return Problem.of(open_member("planted/direction"), TERMS.examples, 0)


def recovery(name: str, problem: Problem):
    line = LINES[name]
    assert line.barred(problem) == ""
    return scored(line.look(problem, TERMS, 0), line.truth(problem))


def test_probes_score_variables_higher_where_they_have_been_computed(sorting: Problem) -> None:
    found = recovery("probe", sorting).auroc
    assert found is not None
    assert found > 0.9


def test_what_a_probe_of_the_output_reads_is_used_and_of_no_other_variable(sorting: Problem) -> None:
    found = recovery("probe, then swap", sorting)
    assert (found.true, found.auroc, found.recall) == (1, 1.0, 1.0)


def test_a_direction_that_is_carried_and_not_used_is_never_claimed(planted: Problem) -> None:
    answer = LINES["use of directions"].look(planted, TERMS, 0)
    used = {name for name, verdict in answer.verdicts.items() if verdict == "supported"}
    assert "causal" in used
    assert not used & {"disconnected", "dormant"}


def test_lines_say_what_they_cannot_be_asked(sorting: Problem, planted: Problem) -> None:
    assert "no variables" in LINES["probe"].barred(planted)
    assert "not used" in LINES["use of directions"].barred(sorting)


def test_a_variable_is_readable_from_its_block_on_though_the_network_has_no_site_there() -> None:
    problem = Problem.of(open_member("compiled/brackets+compressed"), TERMS.examples, 0)
    written = problem.variables["partner"].site.path
    assert written not in problem.net.sites  # what the MLP behind it adds is nothing
    truth = LINES["probe"].truth(problem)
    blocks = [site for site in problem.net.select("blocks.*.resid_post") if int(site[7]) >= int(written[7])]
    assert {item for item in truth if item.startswith("partner ")} == {f"partner at {site}" for site in blocks}
