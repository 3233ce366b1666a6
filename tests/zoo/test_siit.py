"""The networks trained to do programs: they do them, part by part, and what is said of them is true."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import openwork as ow
from openwork import zoo
from openwork.errors import UnknownName
from openwork.recipes.interchange import Interchanged, Swaps, drawn, interchange_accuracy, task_accuracy
from openwork.site import Site
from openwork.zoo import edgewise, embedded, siit
from openwork.zoo.truth import Claims, TruthSettings, check

NAMES = siit.names()
SETTINGS = TruthSettings(examples=64, resamplings=2, bootstraps=499)
MOST_BYTES = 150_000

opened = cache(siit.open)


def test_at_least_eight_ship_and_are_small():
    assert len(NAMES) >= 8
    for name in NAMES:
        assert (embedded.WEIGHTS / "siit" / name / "model.safetensors").stat().st_size <= MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_as_the_algorithm_does(name):
    trained = opened(name)
    program = trained.compiled.program
    rng = np.random.default_rng(11)
    rows = [program.domain.sample(rng) for _ in range(64)]
    with torch.no_grad():
        said = trained.network(torch.tensor(program.encode(rows))).logits.argmax(dim=-1).tolist()
    asked = [
        (answer, program.domain.words[said[i][j]])
        for i, row in enumerate(rows)
        for j, answer in enumerate(program.algorithm(row))
        if answer is not None
    ]
    right = sum(expected == word for expected, word in asked) / len(asked)
    assert right >= 0.95
    assert right == pytest.approx(trained.card["task"]["accuracy"], abs=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_is_measured(name):
    trained = opened(name)
    swaps = Swaps.of(trained.compiled, trained.network, trained.correspondence)
    rows = drawn(trained.compiled.program, 64, seed=23)
    found = interchange_accuracy(trained.compiled, trained.network, swaps, rows)
    written, exact = trained.card["interchange"], trained.card["float32"]
    assert set(written["of"]) == set(found)
    for item, accuracy in found.items():
        assert accuracy.all.value == pytest.approx(written["of"][item], abs=0.07)
    for kind in ("parts", "edges"):
        together = Interchanged.together(f for item, f in found.items() if (" -> " in item) == (kind == "edges"))
        assert together.all.value == pytest.approx(written[kind]["accuracy"], abs=0.02)
        assert together.changed.value == pytest.approx(written[kind]["changed"]["accuracy"], abs=0.04)
        assert written[kind]["accuracy"] == pytest.approx(exact[kind], abs=2e-3)
    assert trained.card["task"]["accuracy"] == pytest.approx(exact["task"], abs=2e-3)
    assert task_accuracy(trained.compiled, trained.network, rows).value >= 0.95


@pytest.mark.parametrize("name", NAMES)
def test_parts_reach_the_goal_and_edges_that_do_not_are_said(name):
    card = opened(name).card
    assert card["interchange"]["parts"]["accuracy"] >= card["goal"] == 0.95
    assert card["interchange"]["parts"]["changed"]["accuracy"] >= 0.95
    below = card["interchange"]["below_goal"]
    assert set(below) == {item for item, accuracy in card["interchange"]["of"].items() if accuracy < card["goal"]}
    text = (embedded.WEIGHTS / "siit" / name / "README.md").read_text(encoding="utf-8")
    assert (f"Below the goal of 0.95: {', '.join(below)}" if below else "All reach 0.95") in text


@pytest.mark.parametrize("name", NAMES)
def test_its_answer_is_true_also_on_rows_that_the_card_did_not_see(name):
    trained = opened(name)
    task = trained.compiled.program.task(64, seed=17)
    truth = check(trained.network, task, Claims.of(trained.known), SETTINGS)
    assert truth.holds, str(truth)
    written = trained.card["truth"]
    assert written["holds"]
    assert written["epsilon"] == SETTINGS.epsilon
    assert {e["item"] for e in written["true"]} == {e.item for e in truth.true}
    for kind, edges in (("edge", trained.known.edges), ("node", trained.known.sites)):
        assert {e.item for e in truth.true if e.kind == kind} == set(map(str, edges))


def test_an_answer_in_the_wrong_place_is_not_true():
    trained = opened("induction")
    wrong = siit.Correspondence(
        {
            old: Site(new.path, ((new.index[0] + 1) % 4,)) if new.index else new
            for old, new in trained.correspondence.parts.items()
        }
    )
    task = trained.compiled.program.task(64, seed=17)
    claims = Claims.of(wrong.known(trained.compiled.known))
    assert not check(trained.network, task, claims, SETTINGS).holds


def test_half_the_answer_is_not_all_that_is_true():
    trained = opened("induction")
    claims = Claims.of(trained.known)
    assert claims.edges is not None
    task = trained.compiled.program.task(64, seed=17)
    truth = check(trained.network, task, Claims(edges=claims.edges[1:]), SETTINGS)
    assert [effect.kind for effect in truth.failures] == ["edge"]


@pytest.mark.parametrize("name", NAMES)
def test_it_has_norms_mlps_and_parts_to_spare(name):
    trained = opened(name)
    config = trained.network.config
    assert (config.norm, config.activation) == ("layer", "gelu")
    assert 2 <= config.layers <= 4
    assert 32 <= config.width <= 128
    spare = set(edgewise.senders(trained.network)) - set(trained.known.sites) - {Site("embed")}
    assert len(spare) >= config.layers


def test_it_opens_by_name_with_words():
    net = ow.open("siit/induction")
    words = siit.open("induction").compiled.program.domain.words
    _, a, b, c = words[:4]
    _, tokenizer = zoo.load("siit/induction")
    row = f"bos {a} {b} {c} {a}"
    assert tokenizer(row).input_ids == [words.index(word) for word in row.split()]
    logits = net.run(row, keep=["logits"])["logits"]
    assert words[int(logits[0, -1].argmax())] == b


def test_unknown_programs_list_the_nearest():
    with pytest.raises(UnknownName, match="induction"):
        siit.open("inductoin")
