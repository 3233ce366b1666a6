"""Keeping more than fits: bytes foretold, the batch in parts, values to the CPU, a folder or a function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from openwork.edit import Ablate, Add, Custom, Patch
from openwork.errors import BadInput, OutputOccupied
from openwork.network import Network
from openwork.network.memory import parse_bytes
from openwork.site import Where
from openwork.store.activations import ActivationReader
from openwork.task import Inputs

from .conftest import Opener
from .oracle import hooks_left
from .tiny import build, example, token_ids

SITES = ["blocks.*.resid_post", "blocks.1.attn.pattern", "blocks.0.attn.z[1,3]", "blocks.2.mlp.hidden"]
BUDGET = 60_000
"""Two of the seven rows below at a time."""


def ids() -> Tensor:
    return token_ids(7, 12, seed=6)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt-oss", "attention-only", "vit", "pictures"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_plan_tells_the_bytes_that_are_then_taken(opened: Opener, kind: str, dtype: torch.dtype) -> None:
    from openwork import network

    net = opened(kind)
    kwargs = example(kind, rows=5, length=12, seed=6)
    if dtype != torch.float32:
        net = network.open(build(kind).to(dtype), example={k: as_dtype(v, dtype) for k, v in example(kind).items()})
        kwargs = {k: as_dtype(v, dtype) for k, v in kwargs.items()}
    sites = [*net.sites][:12] + [s for s in net.sites if s.endswith(("pattern", "scale", "logits"))]
    run, plan = net.run(kwargs, keep=sites), net.plan(kwargs, sites)
    assert plan.bytes_of == {name: run[name].numel() * run[name].element_size() for name in run.values}
    assert plan.total == sum(plan.bytes_of.values())
    assert plan.rows == 5
    assert f"{len(run.values)} sites" in str(plan)


def as_dtype(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def test_the_plan_counts_what_an_index_selects(gpt2: Network) -> None:
    plan = gpt2.plan(ids(), SITES)
    assert plan.bytes_of["blocks.0.attn.z[1,3]"] == 7 * 12 * 2 * 8 * 4
    assert plan.bytes_of["blocks.1.attn.pattern"] == 7 * 4 * 12 * 12 * 4
    assert plan.copied == ("blocks.0.attn.z[1,3]",)


def test_the_plan_says_what_must_be_copied(opened: Opener) -> None:
    plan = opened("pictures").plan(example("pictures"), ["module:stem.out", "module:stages.0.first.out", "logits"])
    assert plan.copied == ("module:stem.out",)


@pytest.mark.parametrize("edits", [(), Add("blocks.1.resid_pre", -1, vector=1.0)], ids=["plain", "edited"])
def test_parts_give_the_values_of_the_whole(gpt2: Network, edits: Any) -> None:
    whole = gpt2.run(ids(), keep=SITES, edits=edits)
    assert 1 < gpt2.plan(ids(), SITES).rows_within(BUDGET) < 7
    parts = gpt2.run(ids(), keep=SITES, edits=edits, memory=BUDGET)
    assert set(parts.values) == set(whole.values)
    for name, value in whole.values.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-6, atol=1e-6)
        assert parts.axes(name) == whole.axes(name)
    assert parts.lengths == whole.lengths == (12,) * 7


def test_parts_of_ragged_inputs(gpt2: Network) -> None:
    inputs = Inputs(
        tuple(tuple(row[: 5 + n].tolist()) for n, row in enumerate(ids())), {"end": tuple((4,) for _ in ids())}
    )
    edits = Ablate("blocks.1.mlp.out", "end")
    whole = gpt2.run(inputs, keep="blocks.1.resid_post", edits=edits)
    seen: list[Tensor] = []
    site = "blocks.1.resid_post"
    gpt2.run(inputs, keep=site, edits=edits, memory=5_000, to=lambda name, value: seen.append(value.clone()))
    assert len(seen) > 2
    rows = [row for value in seen for row in value]
    for n, (row, expected) in enumerate(zip(rows, whole[site], strict=True)):
        torch.testing.assert_close(row[: 5 + n], expected[: 5 + n], rtol=1e-5, atol=1e-5)


def test_edits_of_some_rows_are_refused_in_parts_or_reach_the_same_rows(gpt2: Network) -> None:
    """In a part the rows have other numbers; an error is right as well, other rows are not."""
    edits = Ablate("blocks.1.mlp.out", Where(rows=(5,)))
    sites = [*SITES, "blocks.1.mlp.out"]
    agree_or_refuse(gpt2, sites, edits, "blocks.1.mlp.out")


@pytest.mark.parametrize("how", ["mean", "noise", "resample"])
def test_statistics_are_those_of_the_whole_batch_or_refused(gpt2: Network, how: Any) -> None:
    agree_or_refuse(gpt2, SITES, Ablate("blocks.1.mlp.out", how=how), "blocks.2.resid_post")


def agree_or_refuse(net: Network, sites: list[str], edits: Any, site: str) -> None:
    whole = net.run(ids(), keep=sites, edits=edits)
    try:
        parts = net.run(ids(), keep=sites, edits=edits, memory=BUDGET)
    except BadInput:
        return
    torch.testing.assert_close(parts[site], whole[site], rtol=1e-5, atol=1e-5)


def test_values_on_the_cpu(gpt2: Network) -> None:
    whole = gpt2.run(ids(), keep=SITES)
    run = gpt2.run(ids(), keep=SITES, to="cpu")
    assert torch.equal(run.logits, whole.logits)
    assert all(torch.equal(run[name], whole[name]) and run[name].device.type == "cpu" for name in whole.values)


@pytest.mark.parametrize("memory", [None, BUDGET])
def test_values_in_a_folder(gpt2: Network, tmp_path: Path, memory: int | None) -> None:
    whole = gpt2.run(ids(), keep=SITES)
    run = gpt2.run(ids(), keep=SITES, to=tmp_path / "kept", memory=memory)
    assert run.values == {}
    stored = ActivationReader(tmp_path / "kept")
    assert stored.n_rows == 7
    assert set(stored.axes) == set(whole.values)
    for name, value in whole.values.items():
        torch.testing.assert_close(stored[name], value, rtol=1e-6, atol=1e-6)
        assert stored.axes[name] == whole.axes(name)


def test_a_folder_that_holds_something_else(gpt2: Network, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear all")
    with pytest.raises(OutputOccupied, match=r"letter\.txt"):
        gpt2.run(ids(), keep=SITES, to=tmp_path)


def test_a_failed_run_leaves_no_store(gpt2: Network, tmp_path: Path) -> None:
    def fail(value: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        gpt2.run(ids(), keep=SITES, to=tmp_path / "kept", edits=Custom("blocks.2.mlp.out", fn=fail))
    assert not list(tmp_path.glob("kept/*"))
    assert hooks_left(gpt2.module) == []


@pytest.mark.parametrize("memory", [None, BUDGET])
def test_a_function_that_reduces(gpt2: Network, memory: int | None) -> None:
    sums: dict[str, Tensor] = {}

    def add(name: str, value: Tensor) -> None:
        sums[name] = sums.get(name, torch.zeros(())) + value.double().sum(0)

    whole = gpt2.run(ids(), keep=SITES)
    run = gpt2.run(ids(), keep=SITES, to=add, memory=memory)
    assert run.values == {}
    for name, value in whole.values.items():
        torch.testing.assert_close(sums[name], value.double().sum(0))


def test_a_budget_too_small_for_one_row(gpt2: Network) -> None:
    need = -(-gpt2.plan(ids(), SITES).total // 7)
    with pytest.raises(BadInput, match=rf"at least {need} bytes .*got {need - 1}"):
        gpt2.run(ids(), keep=SITES, memory=need - 1)
    torch.testing.assert_close(
        gpt2.run(ids(), keep=SITES, memory=need)["blocks.1.resid_post"],
        gpt2.run(ids(), keep=SITES)["blocks.1.resid_post"],
        rtol=1e-6,
        atol=1e-6,
    )


def test_parts_of_what_cannot_be_cut(gpt2: Network) -> None:
    with pytest.raises(BadInput, match="split the batch yourself"):
        gpt2.run({"input_ids": ids()}, keep=SITES, memory=BUDGET)
    with pytest.raises(BadInput, match="split the batch yourself"):
        gpt2.run(ids(), keep=SITES, memory=BUDGET, edits=Patch("embed"), sources={"clean": ids()})
    ragged = Inputs(tuple(tuple(row[: 5 + n].tolist()) for n, row in enumerate(ids())))
    with pytest.raises(BadInput, match="one length"):
        gpt2.run(ragged, keep=SITES, memory=BUDGET)


@pytest.mark.parametrize(
    ("budget", "expected"), [("2GiB", 2**31), ("500 MB", 5 * 10**8), ("1.5KiB", 1536), (77, 77), ("10", 10)]
)
def test_budgets(budget: str | int, expected: int) -> None:
    assert parse_bytes(budget) == expected


@pytest.mark.parametrize("budget", ["2 gibi", "lots", "-3MB", "1.2.3KiB"])
def test_budgets_that_do_not_parse(budget: str) -> None:
    with pytest.raises(BadInput, match="2GiB"):
        parse_bytes(budget)


def test_gradients_go_with_neither_budget_nor_sink(gpt2: Network) -> None:
    with pytest.raises(BadInput, match="grads"):
        gpt2.run(ids(), keep=SITES, to="cpu", grads=lambda run: run.logits[:, -1, 0])
