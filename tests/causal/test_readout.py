"""What is read of a site: the matrix that the network holds, found without looking for it by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tests.network import tiny

import openwork as ow
from openwork.causal.readout import ReadOut, read_out
from openwork.causal.swaps import Place, Swap
from openwork.network import Network
from openwork.task import Task

# what the network multiplies the part with, (out, channel)
MATRICES: dict[tuple[str, str], Callable[[Any], torch.Tensor]] = {
    ("gpt2", "blocks.1.mlp.hidden"): lambda m: m.transformer.h[1].mlp.c_proj.weight.T,
    ("gpt2", "blocks.1.attn.z[2]"): lambda m: m.transformer.h[1].attn.c_proj.weight[16:24].T,
    ("gemma2", "blocks.1.mlp.hidden"): lambda m: m.model.layers[1].mlp.down_proj.weight,
    ("gemma2", "blocks.1.attn.z[0]"): lambda m: m.model.layers[1].self_attn.o_proj.weight[:, :8],
    ("falcon", "blocks.1.mlp.hidden"): lambda m: m.transformer.h[1].mlp.dense_4h_to_h.weight,
    ("attention-only", "blocks.1.attn.z[3]"): lambda m: m.blocks[1].attn.o.weight[:, 24:],
    ("vit", "blocks.1.mlp.hidden"): lambda m: m.vit.layers[1].mlp.fc2.weight,
}


def task_of(kind: str, rows: int = 6) -> Task:
    right, wrong = [4 - i % 2 for i in range(rows)], [i % 2 for i in range(rows)]
    if kind == "vit":
        one, two = (tiny.example(kind, rows, seed=s)["pixel_values"] for s in (0, 1))
        return Task.from_tensors(one, two, right, wrong, argument="pixel_values")
    if kind == "perceptron":
        one, two = (tiny.example(kind, rows, seed=s)["x"] for s in (0, 1))
        return Task.from_tensors(one, two, right, wrong, argument="x")
    return Task.from_tokens(tiny.token_ids(rows, 7, 0), tiny.token_ids(rows, 7, 1), right, wrong)


@cache
def opened(kind: str) -> tuple[Any, Network]:
    module = tiny.build(kind)
    return module, ow.open(module, example=tiny.example(kind))


def read(kind: str, site: str, net: Network | None = None) -> ReadOut:
    net = net or opened(kind)[1]
    return read_out(Place.of(net, site, Swap()), task_of(kind).split("find"))


def same_span(found: np.ndarray, matrix: torch.Tensor) -> bool:
    _, values, rows = np.linalg.svd(matrix.detach().double().numpy(), full_matrices=False)
    rows = rows[values > 1e-5 * values.max()]
    return len(found) == len(rows) and np.allclose(found.T @ found, rows.T @ rows, atol=1e-4)


SLOWER = ("falcon", "vit")
CASES = [pytest.param(*case, marks=pytest.mark.extended if case[0] in SLOWER else ()) for case in MATRICES]


@pytest.mark.parametrize(("kind", "site"), CASES, ids=lambda value: value)
def test_the_row_space_is_that_of_the_matrix_in_the_network(kind: str, site: str) -> None:
    module, _ = opened(kind)
    found = read(kind, site)
    assert found.kind == "linear"
    assert same_span(found.rows, MATRICES[kind, site](module))


def test_the_matrix_itself_is_found() -> None:
    module, _ = opened("gpt2")
    found = read("gpt2", "blocks.1.mlp.hidden")
    assert np.allclose(found.matrix, module.transformer.h[1].mlp.c_proj.weight.detach().T.numpy(), atol=1e-4)


def test_of_all_heads_at_once_is_read_what_any_head_passes_on() -> None:
    module, _ = opened("gpt2")
    found = read("gpt2", "blocks.1.attn.z")
    weight = module.transformer.h[1].attn.c_proj.weight.detach().T.reshape(32, 4, 8)
    assert np.allclose(found.matrix, weight.transpose(0, 1).reshape(128, 8).numpy(), atol=1e-4)


def test_a_unit_that_is_cut_off_is_in_the_null_space() -> None:
    module = tiny.build("gpt2")
    with torch.no_grad():
        module.transformer.h[1].mlp.c_proj.weight[5] = 0
    found = read("gpt2", "blocks.1.mlp.hidden", ow.open(module))
    assert np.linalg.norm(found.rows[:, 5]) < 1e-4


def test_the_residual_stream_has_no_matrix_and_gets_the_jacobian() -> None:
    found = read("gpt2", "blocks.1.resid_pre")
    assert (found.kind, found.reader) == ("jacobian", "the logits")


def test_what_is_only_added_to_the_residual_stream_has_no_matrix_either() -> None:
    assert read("gpt2", "blocks.1.mlp.out").kind == "jacobian"


def test_the_jacobian_misses_nothing_that_moves_the_logits() -> None:
    module = tiny.build("perceptron")
    with torch.no_grad():
        module.up.bias[:20] -= 1000.0  # these units never fire
    found = read("perceptron", "module:up.out", ow.open(module, example=tiny.example("perceptron")))
    x = torch.cat([tiny.example("perceptron", 6, seed=s)["x"] for s in (0, 1)]).reshape(-1, 32)
    hidden = module.up(x).detach()
    jacobian = torch.cat([torch.autograd.functional.jacobian(lambda h: module.down(h.relu()), h) for h in hidden])
    assert found.kind == "jacobian"
    assert found.rank <= 4
    assert same_span(found.rows, jacobian)
    assert np.abs(found.rows[:, :20]).max() == 0


def test_probing_leaves_no_hook_behind() -> None:
    module, _ = opened("gpt2")
    read("gpt2", "blocks.1.mlp.hidden")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
