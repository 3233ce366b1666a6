"""Hard forms: behaviour stays, the answer stays known, and every refusal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from openwork.errors import BadInput, CorruptFile, TaskFailed, UnknownName
from openwork.site import Site
from openwork.zoo import compiled
from openwork.zoo.compiled import FORMS, Compiled, compression
from openwork.zoo.compiled.assemble import blocks
from openwork.zoo.compiled.forms import Compressed, Distracted, Noisy, Redundant, Rotated
from openwork.zoo.compiled.rebase import accuracy, rebased
from openwork.zoo.transformer import Transformer
from openwork.zoo.truth import Claims, TruthSettings, check

QUICK = ("fraction", "ioi", "sort")
SOME = [name if name in QUICK else pytest.param(name, marks=pytest.mark.extended) for name in compiled.names()]
TRUTHS = [n if n == "ioi" else pytest.param(n, marks=pytest.mark.extended) for n in compiled.names()]
FEW = TruthSettings(examples=64, bootstraps=200)


@torch.no_grad()
def logits(network: Transformer, member: Compiled) -> torch.Tensor:
    return network(torch.tensor(member.program.encode(list(member.program.rows(most=300, otherwise=300))))).logits


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SOME)
def test_form_answers_as_the_program(name, form):
    right, asked = accuracy(compiled.open(f"{name}+{form}"), rows=1000)
    assert right == asked > 100


@pytest.mark.parametrize("form", ["redundant", "distracted", "rotated"])
@pytest.mark.parametrize("name", ["ioi", "sort"])
def test_exact_forms_keep_the_logits(name, form):
    plain, hard = compiled.open(name), compiled.open(f"{name}+{form}")
    torch.testing.assert_close(logits(hard.network, plain), logits(plain.network, plain), atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", [*compiled.names(), "ioi+distracted+rotated", "fraction+distracted+compressed"])
def test_known_edges_and_nodes_are_true_and_all_the_others_are_not(name):
    member = compiled.open(name)
    found = check(member.network, member.program.task(64), Claims.of(member.known), FEW)
    assert found.holds, str(found)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TRUTHS)
def test_answer_of_a_form_is_true(name, form):
    member = compiled.open(f"{name}+{form}")
    found = check(member.network, member.program.task(64), Claims.of(member.known), FEW)
    assert found.holds, str(found)


@pytest.mark.parametrize("form", ["", "+rotated", "+compressed", "+distracted"])
def test_every_direction_is_causal_in_every_form(form):
    member = compiled.open(f"reverse{form}")
    for name, direction in member.known.directions.items():
        claims = Claims(directions={name: direction})
        (effect,) = check(member.network, member.program.task(64), claims, FEW).true
        assert effect.size.low > FEW.epsilon


def test_distraction_is_in_the_same_layers_and_does_real_work():
    plain, hard = compiled.open("induction"), compiled.open("induction+distracted")
    assert hard.network.config.layers == plain.network.config.layers
    assert all(h > p for h, p in zip(hard.network.config.heads, plain.network.config.heads, strict=True))
    assert hard.network.config.mlp[0] > plain.network.config.mlp[0]
    idle = set(range(hard.network.config.heads[0])) - {s.index[0] for s in hard.known.sites if s.block == 0}
    ids = torch.tensor(hard.program.encode(list(hard.program.rows(most=50, otherwise=50))))
    attn = blocks(hard.network)[0].attn
    x = hard.network.embed(ids, torch.arange(ids.shape[1])[None])
    with torch.no_grad():
        value = attn.v(x).unflatten(-1, (attn.heads, -1))
    assert idle
    assert all(float(value[..., head, :].std()) > 0.01 for head in idle)


def test_either_copy_of_a_redundant_circuit_suffices_when_the_other_is_ablated():
    member = compiled.open("reverse+redundant")
    own = {name: nodes[0].site for name, nodes in member.known.roles.items() if name.startswith("reversed")}
    assert len(own) == 2
    for ablated in own.values():
        network = rebased(member, *identity(member), form="copy").network
        assert ablated.block is not None
        attn = blocks(network)[ablated.block].attn
        width = network.config.head_width
        rows = slice(ablated.index[0] * width, (ablated.index[0] + 1) * width)
        with torch.no_grad():
            attn.o.weight[:, rows] = 0
        right, asked = accuracy(replace(member, network=network))
        assert right == asked


def identity(member: Compiled) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    width = member.network.config.width
    return torch.eye(width), torch.eye(width), torch.zeros(width)


def test_rotation_leaves_no_channel_with_a_meaning():
    weight = compiled.open("induction+rotated").network.tokens.weight
    assert float((weight.abs() > 1e-4).double().mean()) > 0.99


def test_rotated_direction_reads_the_variable():
    member = compiled.open("induction+rotated")
    direction = member.known.directions["tokens"]
    assert direction.site == Site("embed")
    ids = torch.tensor(member.program.encode(list(member.program.rows(most=20, otherwise=20))))
    x = member.network.embed(ids, torch.arange(ids.shape[1])[None]).detach().numpy()
    read = x @ direction.array.numpy().T
    np.testing.assert_allclose(read, np.eye(len(member.program.domain.words))[ids.numpy()], atol=1e-5)


def test_noise_is_on_every_weight_and_a_part_of_its_size():
    plain, hard = compiled.open("ioi"), Noisy((0.01,)).apply(compiled.open("ioi"))
    weights = zip(plain.network.state_dict().items(), hard.network.state_dict().values(), strict=True)
    for (name, before), after in weights:
        rms = before.square().mean().sqrt()
        if float(rms) and before.numel() > 200:
            assert float((after - before).std() / rms) == pytest.approx(0.01, rel=0.2), name


@pytest.mark.parametrize("name", SOME)
def test_compressed_has_fewer_dimensions_than_directions(name):
    plain, hard = compiled.open(name), compiled.open(f"{name}+compressed")
    most = {"brackets": 0.81, "sort": 0.86, "unique": 0.91}.get(name, 0.66)
    assert hard.network.config.width <= most * plain.network.config.width


def test_forms_apply_in_one_order_however_they_are_said():
    member = compiled.open("induction+noisy+rotated+distracted")
    assert [type(form) for form in member.forms] == [Distracted, Rotated, Noisy]


def test_form_of_the_program_after_one_of_the_weights_is_refused():
    rotated = Rotated().apply(compiled.open("induction"))
    for form in (Redundant(), Distracted()):
        with pytest.raises(BadInput, match="before forms that change weights"):
            form.apply(rotated)


def test_noise_or_compression_that_changes_answers_is_refused():
    plain = compiled.open("induction")
    with pytest.raises(TaskFailed, match="expected 'induction' to bear noise"):
        Noisy((1.0,)).apply(plain)
    with pytest.raises(TaskFailed, match="expected 'induction' to bear compression"):
        Compressed((0.1,)).apply(Rotated().apply(plain))


def test_change_of_basis_that_changes_answers_is_refused():
    member = compiled.open("induction")
    write, read, offset = identity(member)
    with pytest.raises(TaskFailed, match="answers changed"):
        rebased(member, write, 0 * read, offset, "nothing is read")


def test_single_copy_is_no_redundancy():
    with pytest.raises(BadInput, match="at least two copies"):
        Redundant(1)


def test_unknown_programs_and_forms_are_refused():
    with pytest.raises(UnknownName, match="no compiled program named 'oio'"):
        compiled.open("oio")
    with pytest.raises(UnknownName, match="no form of a compiled program named 'rotten'"):
        compiled.open("ioi+rotten")
    with pytest.raises(BadInput, match="each form once"):
        compiled.open("ioi+rotated+rotated")


def test_damaged_matrices_are_refused(tmp_path, monkeypatch):
    damaged = tmp_path / "compressed.safetensors"
    damaged.write_bytes(compression.SHIPPED.read_bytes()[:1000])
    monkeypatch.setattr(compression, "SHIPPED", damaged)
    with pytest.raises(CorruptFile, match="compressed programs"):
        compiled.open("ioi+compressed")


def test_matrices_of_a_program_that_does_not_ship_are_refused():
    with pytest.raises(UnknownName, match="compressed program"):
        compression.shipped("none")
