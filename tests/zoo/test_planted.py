"""The planted direction and the planted facts, with hooks placed by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.errors import BadInput
from openwork.network import open as open_network
from openwork.site import Site
from openwork.zoo import PlantedDirection, PlantedFact, Store, direction_task, fact_task
from openwork.zoo.planted import LENGTH, MINUS, PLUS


def logits(network: nn.Module, ids: object, edits: dict[str, Callable[[Tensor], Tensor]] | None = None) -> Tensor:
    """Logits of the last token, with the outputs of some modules changed."""
    handles = [
        network.get_submodule(name).register_forward_hook(lambda m, i, o, f=f: f(o))
        for name, f in (edits or {}).items()
    ]
    with torch.no_grad():
        out = network(torch.tensor(ids))[:, -1]
    for handle in handles:
        handle.remove()
    return out


def difference(task: Any, found: Tensor) -> float:
    right, wrong = torch.tensor(task.answer), torch.tensor(task.wrong)
    return float((found.gather(1, right[:, None]) - found.gather(1, wrong[:, None])).mean())


def value(network: nn.Module, ids: object, name: str) -> Tensor:
    kept: list[Tensor] = []
    logits(network, ids, {name: lambda o: kept.append(o) or o})
    return kept[0]


def subjects(task: Any) -> tuple[Tensor, Tensor]:
    return torch.arange(len(task)), torch.tensor(task.clean.groups["subject"])[:, 0]


# -- the direction --


@pytest.fixture(scope="module")
def direction() -> PlantedDirection:
    return PlantedDirection().eval()


@pytest.fixture(scope="module")
def signs(direction) -> Any:
    return direction_task(direction)


def swapped(network: nn.Module, task: Any, vector: Tensor | None) -> float:
    """Clean rows with the hidden layer's component along a vector from the corrupted ones; None for all of it."""
    other, (rows, places) = value(network, task.corrupted.ids, "blocks.0.mlp.1"), subjects(task)

    def edit(hidden: Tensor) -> Tensor:
        new = hidden.clone()
        gap = other[rows, places] - hidden[rows, places]
        new[rows, places] += gap if vector is None else (gap @ vector)[:, None] * vector
        return new

    return difference(task, logits(network, task.clean.ids, {"blocks.0.mlp.1": edit}))


def vector_of(network: PlantedDirection, name: str) -> Tensor:
    return torch.from_numpy(network.known.directions[name].array.numpy())


def test_it_tells_the_sign(direction, signs):
    found = logits(direction, signs.clean.ids)[:, [PLUS, MINUS]].argmax(-1)
    assert (found == torch.tensor(signs.answer) - PLUS).all()


@pytest.mark.parametrize(("name", "carries"), [("causal", 1), ("disconnected", 0), ("dormant", 0), ("illusory", 1)])
def test_directions_carry_what_is_known_of_them(direction, signs, name, carries):
    clean, whole = difference(signs, logits(direction, signs.clean.ids)), swapped(direction, signs, None)
    share = (clean - swapped(direction, signs, vector_of(direction, name))) / (clean - whole)
    assert share == pytest.approx(carries, abs=0.05)


def test_down_projection_reads_the_causal_and_the_dormant_direction_alone(direction):
    down = direction.block(0).layers[1].weight
    assert torch.linalg.matrix_rank(down) < down.shape[1]
    assert (down @ vector_of(direction, "disconnected")).norm() < 1e-5
    assert (down @ vector_of(direction, "causal")).norm() > 0.9
    assert (down @ vector_of(direction, "dormant")).norm() > 1.9


def test_row_space_of_the_read_out_holds_the_causal_and_the_dormant_direction(direction):
    down = direction.block(0).layers[1].weight.detach().double()
    _, sizes, rows = torch.linalg.svd(down)
    rows = rows[: int((sizes > 1e-4 * sizes[0]).sum())]
    for name, length in (("causal", 1), ("dormant", 1), ("disconnected", 0), ("illusory", 0.5**0.5)):
        assert float((rows @ vector_of(direction, name).double()).norm()) == pytest.approx(length, abs=1e-3)


def test_hidden_layer_is_constant_along_the_dormant_direction_and_follows_f_along_the_others(direction, signs):
    hidden = value(direction, signs.clean.ids, "blocks.0.mlp.1")[subjects(signs)]
    feature = direction.feature[torch.tensor(signs.clean.ids)[subjects(signs)] - 16]
    assert (hidden @ vector_of(direction, "dormant")).std() < 1e-4
    for name in ("causal", "disconnected"):
        assert torch.corrcoef(torch.stack((hidden @ vector_of(direction, name), feature)))[0, 1] > 0.999


def test_copy_without_the_direction_does_not_tell_the_sign(signs):
    bare = PlantedDirection(planted=False).eval()
    assert not bare.known.directions
    clean, whole = difference(signs, logits(bare, signs.clean.ids)), swapped(bare, signs, None)
    assert abs(clean) < 0.1
    assert abs(clean - whole) < 0.1


# -- the fact --


@pytest.fixture(scope="module")
def fact() -> PlantedFact:
    return PlantedFact().eval()


@pytest.fixture(scope="module")
def facts(fact) -> Any:
    return fact_task(fact)


def moved(network: nn.Module, task: Any, name: str, last: bool) -> float:
    """Corrupted rows with a module's output at subject or last token from the clean ones."""
    other, (rows, places) = value(network, task.clean.ids, name), subjects(task)
    places = torch.full_like(places, LENGTH - 1) if last else places

    def edit(output: Tensor) -> Tensor:
        new = output.clone()
        new[rows, places] = other[rows, places]
        return new

    return difference(task, logits(network, task.corrupted.ids, {name: edit}))


def test_it_recalls_its_facts(fact, facts):
    assert (logits(fact, facts.clean.ids).argmax(-1) == torch.tensor(facts.answer)).float().mean() > 0.95
    for ids, answer in zip(facts.clean.ids, facts.answer, strict=True):
        assert any(fact.facts[0].get(token) == answer for token in ids)


def test_only_the_known_mlp_restores_the_fact_at_the_subject(fact, facts):
    clean, corrupted = (difference(facts, logits(fact, x.ids)) for x in (facts.clean, facts.corrupted))
    for layer in range(5):
        for part in ("mlp", "attn"):
            share = (moved(fact, facts, f"blocks.{layer}.{part}", False) - corrupted) / (clean - corrupted)
            assert share == pytest.approx(float((layer, part) == (1, "mlp")), abs=0.1)
    assert fact.known.site("fact") == Site("blocks.1.mlp.out")


def test_subject_carries_it_up_to_the_mover_and_the_last_token_after(fact, facts):
    clean, corrupted = (difference(facts, logits(fact, x.ids)) for x in (facts.clean, facts.corrupted))
    for layer in range(5):
        for last in (False, True):
            share = (moved(fact, facts, f"blocks.{layer}", last) - corrupted) / (clean - corrupted)
            assert share == pytest.approx(float((layer >= 3) == last), abs=0.1)
    assert fact.known.site("mover") == Site("blocks.3.attn.z", (2,))


def test_noise_on_the_subject_breaks_it_and_the_known_mlp_restores_it(fact, facts):
    rows, places = subjects(facts)
    noise = 3 * fact.tokens.weight.detach().std() * torch.randn(len(facts), fact.tokens.embedding_dim)

    def noisy(embedded: Tensor) -> Tensor:
        new = embedded.clone()
        new[rows, places] += noise
        return new

    clean = difference(facts, logits(fact, facts.clean.ids))
    assert difference(facts, logits(fact, facts.clean.ids, {"tokens": noisy})) < 0.2 * clean
    kept = value(fact, facts.clean.ids, "blocks.1.mlp")
    restored = logits(fact, facts.clean.ids, {"tokens": noisy, "blocks.1.mlp": lambda _: kept})
    assert difference(facts, restored) > 0.7 * clean


def test_units_that_hold_facts_fire_at_their_subject_and_hardly_elsewhere(fact, facts):
    units = value(fact, facts.clean.ids, "blocks.1.mlp.1")[..., PlantedFact.FREE :]
    rows, places = subjects(facts)
    tokens = torch.tensor(facts.clean.ids)[rows, places] - 16
    assert (units[rows, places].argmax(-1) == tokens).all()
    assert units[rows, places, tokens].min() > 0.2
    elsewhere = torch.ones(units.shape[:2], dtype=torch.bool)
    elsewhere[rows, places] = False
    assert units[elsewhere].sum(-1).mean() < 0.02


def test_mover_looks_at_the_subject(fact, facts):
    run = open_network(fact).run(facts.clean, keep="blocks.3.attn.pattern")
    rows, places = subjects(facts)
    assert run["blocks.3.attn.pattern"][rows, 2, -1, places].mean() > 0.95


def test_copy_without_facts_recalls_none(facts):
    bare = PlantedFact(planted=False).eval()
    assert not bare.known.roles
    assert abs(difference(facts, logits(bare, facts.clean.ids))) < 0.5
    assert (logits(bare, facts.clean.ids).argmax(-1) == torch.tensor(facts.answer)).float().mean() < 0.1


def test_two_stores_do_not_need_each_other():
    network = PlantedFact((Store(), Store(2, 4, 5))).eval()
    assert [str(network.known.site(f"mover {i}")) for i in (0, 1)] == ["blocks.3.attn.z[2]", "blocks.4.attn.z[5]"]
    for store, layer in ((0, 1), (1, 2)):
        task = fact_task(network, store=store)
        clean = difference(task, logits(network, task.clean.ids))
        for other in (1, 2):
            gone = difference(task, logits(network, task.clean.ids, {f"blocks.{other}.mlp": torch.zeros_like}))
            assert gone / clean == pytest.approx(float(layer != other), abs=0.1)


def test_pairs_differ_in_the_subject_alone(facts: Any, signs: Any) -> None:
    both: Any = (facts, signs)
    for task in both:
        for row, (clean, corrupted) in enumerate(zip(task.clean.ids, task.corrupted.ids, strict=True)):
            assert [i for i in range(LENGTH) if clean[i] != corrupted[i]] == list(task.clean.groups["subject"][row])


@pytest.mark.parametrize(
    "stores", [(), (Store(3, 3),), (Store(1, 5),), (Store(head=8),), (Store(), Store()), (Store(), Store(2))]
)
def test_stores_that_cannot_be_are_refused(stores):
    with pytest.raises(BadInput, match="stores"):
        PlantedFact(stores)


def test_tasks_of_too_many_examples_are_refused(fact, direction):
    with pytest.raises(BadInput, match="at most one a subject"):
        fact_task(fact, n=65)
    with pytest.raises(BadInput, match="2 to 64 examples"):
        direction_task(direction, n=65)
    with pytest.raises(BadInput, match="store below 1"):
        fact_task(fact, store=1)


def test_facts_that_are_all_the_same_are_refused():
    with pytest.raises(BadInput, match="different attributes"):
        fact_task(PlantedFact(subjects=4, attributes=1), n=2)
