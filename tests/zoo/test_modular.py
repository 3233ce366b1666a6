"""The network that adds modulo a prime: its frequencies, its curve, its card."""

from __future__ import annotations

import json

import pytest
import torch

import openwork as ow
from openwork import zoo
from openwork.errors import BadInput
from openwork.recipes.modular import measured
from openwork.zoo import embedded
from openwork.zoo.modular import PRIME, addition_task, frequency_shares, split, sums

NAME = "modular-addition"


def test_it_adds_all_pairs_also_those_it_never_saw():
    network, tokenizer = zoo.load(NAME)
    rows, answers = sums()
    with torch.no_grad():
        said = network(rows).logits[:, -1].argmax(dim=-1)
    assert tokenizer is not None
    assert tokenizer("50 7 =").input_ids == [50, 7, PRIME]
    assert said[50 * PRIME + 7] == 4
    _, held_out = split(zoo.card(NAME)["data"]["split_seed"])
    assert (said == answers)[held_out].float().mean() > 0.99


def test_the_card_says_what_is_measured():
    network, _ = zoo.load(NAME)
    card = zoo.card(NAME)
    for kind, (loss, accuracy) in measured(network, card["data"]["split_seed"]).items():
        assert card["accuracy"][kind] == accuracy.record()
        assert card["loss_shipped"][kind] == pytest.approx(loss, rel=0.02, abs=1e-6)
        assert card["loss_shipped"][kind] == pytest.approx(card["loss_float32"][kind], rel=0.2, abs=1e-4)


def test_a_few_frequencies_hold_the_embedding():
    network, _ = zoo.load(NAME)
    shares = frequency_shares(network.get_parameter("tokens.weight").detach()[:PRIME])
    found = zoo.card(NAME)["frequencies"]
    assert set(found["key"]) == {i + 1 for i, share in enumerate(shares.tolist()) if share > 0.05}
    assert len(found["key"]) <= 6
    assert sum(found["shares"].values()) > 0.9


def test_its_output_is_made_of_the_same_frequencies():
    """The logits depend on a + b alone, and as a function of it they turn with the key frequencies."""
    network, _ = zoo.load(NAME)
    rows, answers = sums()
    with torch.no_grad():
        logits = network(rows).logits[:, -1, :PRIME]
    ahead = (torch.arange(PRIME) + answers[:, None]) % PRIME
    centred = logits.gather(1, ahead).mean(dim=0)
    power = torch.fft.rfft(centred).abs().pow(2)[1:]
    keys = torch.tensor(zoo.card(NAME)["frequencies"]["key"]) - 1
    assert power[keys].sum() / power.sum() > 0.9


def test_the_checkpoints_go_from_knowing_by_heart_to_adding():
    steps = zoo.checkpoints(NAME)
    assert 8 <= len(steps) <= 10
    seed = zoo.card(NAME)["data"]["split_seed"]
    trained, held_out = zip(
        *(
            tuple(accuracy.value for _, accuracy in measured(zoo.load(f"{NAME}@{step}")[0], seed).values())
            for step in steps
        ),
        strict=True,
    )
    assert max(trained[0], held_out[0]) < 0.1
    by_heart = [t > 0.99 and h < 0.5 for t, h in zip(trained, held_out, strict=True)]
    on_the_way = [t > 0.99 and 0.5 <= h < 0.95 for t, h in zip(trained, held_out, strict=True)]
    assert any(by_heart)
    assert any(on_the_way)
    assert held_out[-1] > 0.99


def test_the_curve_falls_on_held_out_pairs_long_after_those_trained_on():
    curve = json.loads((embedded.WEIGHTS / NAME / "curve.json").read_text())
    known = next(r["step"] for r in curve if r["trained_accuracy"] > 0.99)
    added = next(r["step"] for r in curve if r["held_out_accuracy"] > 0.99)
    assert added > 2 * known


def test_it_opens_by_name_and_does_its_task():
    net = ow.open(NAME)
    task = addition_task(n=50, seed=3)
    batch = task.batch(range(50))
    logits = net.run(torch.tensor(batch.clean.ids), keep=["logits"])["logits"][:, -1]
    right = logits.argmax(dim=-1)
    a, b = torch.tensor(batch.clean.ids)[:, 0], torch.tensor(batch.clean.ids)[:, 1]
    assert torch.equal(right, (a + b) % PRIME)
    corrupted = torch.tensor(batch.corrupted.ids)
    assert torch.equal(corrupted[:, 0], a)
    assert (corrupted[:, 1] != b).all()


def test_shares_of_a_cosine_lie_at_its_frequency():
    numbers = torch.arange(PRIME)
    wave = torch.stack([torch.cos(2 * torch.pi * 7 * numbers / PRIME), torch.ones(PRIME)], dim=1)
    assert frequency_shares(wave)[6].item() == pytest.approx(1.0, abs=1e-5)


def test_the_split_is_of_all_pairs_and_depends_on_its_seed():
    trained, held_out = split(0)
    assert sorted([*trained.tolist(), *held_out.tolist()]) == list(range(PRIME**2))
    assert not torch.equal(split(1)[0], trained)


def test_a_task_of_more_examples_than_pairs_is_refused():
    with pytest.raises(BadInput, match="2809"):
        addition_task(n=PRIME**2 + 1)
