"""Networks of the zoo with their answers, by name."""

from __future__ import annotations

import pytest
import torch

import openwork as ow
from openwork import zoo
from openwork.errors import UnknownName
from openwork.task import Inputs

SOME = ("compiled/histogram", "planted/induction", "planted/induction-shared", "planted/direction", "planted/fact")


@pytest.mark.parametrize("name", SOME)
def test_a_member_does_its_task(name: str) -> None:
    member = zoo.open(name)
    task = member.task(32, seed=1)
    logits = member.net.run(task.clean).logits[torch.arange(32), torch.tensor(task.at)]
    assert (logits.argmax(-1) == torch.tensor(task.answer)).float().mean() > 0.95


@pytest.mark.parametrize("name", SOME)
def test_its_circuit_names_sites_that_it_has(name: str) -> None:
    member = zoo.open(name)
    assert len(member.circuit) > 0
    for site in member.circuit.sites:
        assert member.net.map.resolve(site) == [site]


def test_its_algorithm_gives_the_answers_of_its_task() -> None:
    member = zoo.open("compiled/induction")
    task = member.task(16)
    assert member.algorithm is not None
    assert isinstance(task.clean, Inputs)
    for ids, at, right in zip(task.clean.ids, task.at, task.answer, strict=True):
        assert member.algorithm(tuple(member.words[i] for i in ids))[at] == member.words[right]


def test_the_same_seed_gives_the_same_examples_and_another_others() -> None:
    member = zoo.open("compiled/sort")
    assert member.task(16, 3).clean == member.task(16, 3).clean != member.task(16, 4).clean


def test_openwork_open_takes_its_name() -> None:
    net = ow.open("compiled/histogram", dtype="float64")
    assert net.name == "compiled/histogram"
    assert net.run(zoo.open("compiled/histogram").task(2).clean).logits.dtype == torch.float64


def test_a_null_is_a_member_with_a_tempting_circuit() -> None:
    member = zoo.open("null/decoy/0")
    assert member.wrong is not None
    assert not {*member.wrong.sites} & {*member.circuit.sites}


@pytest.mark.parametrize("name", ["compild/ioi", "compiled/iooi", "planted/fac", "null/decoi/1", "ioi"])
def test_an_unknown_name_lists_the_nearest(name: str) -> None:
    with pytest.raises(UnknownName, match=r"compiled|planted|decoy"):
        zoo.open(name)


def test_members_are_listed_by_family_and_nulls_only_when_asked_for() -> None:
    listed = zoo.members()
    assert {name.partition("/")[0] for name in listed} == {*zoo.FAMILIES} - {"null"}
    assert zoo.members("planted") == [name for name in listed if name.startswith("planted/")]
    with pytest.raises(UnknownName, match="compiled"):
        zoo.members("compild")
