from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from openwork.edit import Array, Patch, Set
from openwork.errors import BadInput, Misaligned
from openwork.faithfulness.components import Component, components_of
from openwork.faithfulness.measure import Cell, Meter, mean_values, patch, set_to, sites_of
from openwork.site import Site, Where
from openwork.task import Inputs, Metric

HEADS = [Component(0, "head", 1), Component(1, "head", 4), Component(1, "head", 2), Component(0, "mlp")]


@pytest.fixture
def meter(net, task) -> Meter:
    return Meter(net, task.split("find"), task.metric, batch_tokens=600)


def one_by_one(meter: Meter, cell: Cell) -> torch.Tensor:
    """The slow oracle: plain edits of the engine, one run for each cell."""
    batch = meter.batch
    sources = {"clean": batch.clean, "corrupted": batch.corrupted}
    run = meter.net.run(getattr(batch, cell.base), edits=cell.edits, sources=sources)
    return batch.measure(meter.metric, run.logits).double()


def test_packed_cells_equal_single_runs(meter) -> None:
    means = mean_values(meter.net, meter.batch.corrupted, components_of(meter.net))
    cells = [
        Cell(),
        Cell(base="corrupted"),
        Cell(patch(HEADS, "corrupted")),
        Cell(patch(HEADS[:2], "clean"), "corrupted"),
        Cell(set_to(HEADS, means)),
        Cell((Patch(Site("blocks.1.resid_pre"), Where(group="source"), source="corrupted"),)),
        Cell((Patch(Site("blocks.0.resid_post"), Where(group="last"), source="clean"),), "corrupted"),
        Cell(patch(HEADS[:1], "corrupted") + patch(HEADS[1:2], "clean")),
    ]
    assert meter.per_pass < len(cells)
    got = meter.measure(cells)
    for values, cell in zip(got, cells, strict=True):
        torch.testing.assert_close(torch.from_numpy(values), one_by_one(meter, cell), rtol=1e-4, atol=1e-4)
    assert abs(got[2] - got[0]).max() > 0.1


def test_change_rewrites_the_rows_of_its_own_cell_only(meter) -> None:
    cells = [Cell(), Cell(change=("blocks.1.attn.z", torch.zeros_like)), Cell()]
    got = meter.measure(cells)
    zeros = tuple(Set(Site("blocks.1.attn.z"), value=Array.of(0.0)) for _ in range(1))
    torch.testing.assert_close(torch.from_numpy(got[1]), one_by_one(meter, Cell(zeros)), rtol=1e-4, atol=1e-4)
    assert (got[0] == got[2]).all()


def test_progress_reaches_one(meter) -> None:
    told: list[float] = []
    meter.measure([Cell()] * 9, told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_heads_of_a_block_share_a_site() -> None:
    assert [str(s) for s in sites_of(HEADS)] == ["blocks.0.attn.z[1]", "blocks.0.mlp.out", "blocks.1.attn.z[2,4]"]


def test_mean_leaves_padding_out(net, task) -> None:
    batch = task.split("find")
    means = mean_values(net, batch.clean, components_of(net))
    run = net.run(batch.clean, keep=["blocks.0.attn.z"])
    rows = torch.cat([run["blocks.0.attn.z"][i, : len(ids)] for i, ids in enumerate(batch.clean.ids)])
    torch.testing.assert_close(means["blocks.0.attn.z"], rows.mean(0))


def test_unaligned_examples_are_refused(net, task) -> None:
    batch = task.split("find")
    longer = tuple((*ids, 1) for ids in batch.corrupted.ids)
    with pytest.raises(Misaligned, match="token by token"):
        Meter(net, replace(batch, corrupted=Inputs(longer)), task.metric, 600)


def test_metric_that_is_not_finite_is_refused(net, task) -> None:
    broken = Metric("broken", "nats", lambda logits, answer, wrong: logits[:, 0] * float("nan"))
    with pytest.raises(BadInput, match="finite"):
        Meter(net, task.split("find"), broken, 600).measure([Cell()])


@pytest.mark.parametrize("where", [Where(positions=(1,)), Where(group="nowhere"), Where(rows=(0,))])
def test_other_places_are_refused(meter, where: Where) -> None:
    with pytest.raises(BadInput, match="token groups"):
        meter.measure([Cell((Patch(Site("blocks.0.mlp.out"), where, source="clean"),))])
