"""Measuring and sweeping over images, against one full forward pass for each cell."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from openwork import network
from openwork.edit import Ablate, Edit, Patch
from openwork.errors import BadInput
from openwork.network import Network
from openwork.network.measure import measure
from openwork.network.sweep import sweep
from openwork.site import Where
from openwork.task import Task

from .seeing import NEED_EXAMPLE, images, see

SITES = {"cnn": ["module:c1.out", "module:stages.0.second.out"], "vit": ["blocks.0.resid_post", "blocks.1.mlp.out"]}
ROWS = 4


@cache
def opened(kind: str) -> Network:
    return network.open(see(kind), example={"pixels": images()} if kind in NEED_EXAMPLE else None, name=kind)


def task(kind: str) -> Task:
    mask = torch.zeros(ROWS, 32, 32, dtype=torch.bool)
    mask[:, 8:24, 8:24] = True
    argument = "pixels" if kind == "cnn" else "pixel_values"
    return Task.from_tensors(
        images(ROWS), images(ROWS, seed=1), torch.tensor([0, 1, 2, 3]), torch.tensor([4, 4, 4, 4]),
        argument=argument, regions={"middle": mask},
    )  # fmt: skip


@pytest.mark.parametrize("kind", SITES)
def test_every_cell_is_the_metric_of_one_full_pass(kind: str) -> None:
    net, given = opened(kind), task(kind)
    batch = given.batch(range(ROWS))
    edits: list[Edit] = []
    for site in SITES[kind]:
        edits += [Patch(site, 5), Patch(f"{site}[1,3]", (2, -1)), Patch(site, "middle"), Ablate(site, Where(3, rows=1))]
    found = measure(net, batch, given.metric, [[e] for e in edits], base="corrupted")
    for number, edit in enumerate(edits):
        run = net.run(batch.corrupted, edits=edit, sources={"clean": batch.clean})
        want = batch.measure(given.metric, run.logits)
        np.testing.assert_allclose(found.values[number], want.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SITES)
def test_an_edit_of_some_rows_reaches_only_these(kind: str) -> None:
    net, given = opened(kind), task(kind)
    found = measure(net, given.batch(range(ROWS)), given.metric, [[Ablate(SITES[kind][0], Where(3, rows=(1, 2)))]])
    assert found.reached.tolist() == [[False, True, True, False]]


@pytest.mark.parametrize("kind", SITES)
def test_a_sweep_goes_over_positions_and_regions(kind: str) -> None:
    net, given = opened(kind), task(kind)
    site = SITES[kind][1]
    table = sweep(net, given, Patch(site), over="position")
    assert table.sizes["position"] == (64 if kind == "cnn" else 17)
    run = net.run(given.corrupted, edits=Patch(site, 7), sources={"clean": given.clean})
    want = given.batch(range(ROWS)).measure(given.metric, run.logits)
    np.testing.assert_allclose(table.values[7], want.numpy(), rtol=1e-4, atol=1e-5)
    regions = sweep(net, given, Patch(site), over="group")
    assert regions.group.values.tolist() == ["middle"]


def test_a_sweep_goes_over_channels_of_a_map() -> None:
    net, given = opened("cnn"), task("cnn")
    table = sweep(net, given, Ablate("module:c1.out"), over="channel")
    assert table.sizes["channel"] == 8
    run = net.run(given.clean, edits=Ablate("module:c1.out[6]"))
    want = given.batch(range(ROWS)).measure(given.metric, run.logits)
    np.testing.assert_allclose(table.values[6], want.numpy(), rtol=1e-4, atol=1e-5)


def test_images_without_regions_have_no_groups() -> None:
    bare = Task.from_tensors(images(4), images(4, seed=1), [0, 1, 2, 3], [4, 4, 4, 4], argument="pixels")
    with pytest.raises(BadInput, match="regions"):
        sweep(opened("cnn"), bare, Ablate("module:c1.out"), over="group")
