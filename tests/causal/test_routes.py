"""Controls of paths: others of the same shape, and twins in random directions."""

from __future__ import annotations

import numpy as np
import torch

from openwork import network
from openwork.causal.controls import Twins
from openwork.causal.routes import Route, Router, alike
from openwork.causal.wiring import Wiring
from openwork.circuit import Node
from openwork.edit import Patch
from openwork.network import measure
from openwork.site import Site, Where
from openwork.zoo.induction import Induction, induction_task

from ..network import tiny

LENGTH = 7


def test_twins_of_a_path_from_the_last_layer_to_the_logits_are_those_of_its_sender() -> None:
    net = network.open(Induction().eval(), example={"input_ids": torch.arange(16)[None]})
    task = induction_task(n=16)
    batch, sender = task.split("find"), Node(Site.parse("blocks.1.attn.z[7]"))
    wiring = Wiring.of(net, batch.clean.take([0]))
    router = Router(wiring, batch, task.metric, "clean", "frozen", 2**30)
    found = router.twins(Route((sender,), (Node(Site("logits")),)), 5, seed=3)
    edits = [Patch(sender.site, source="corrupted")]
    through_everything = Twins(net, batch, "clean", edits, seed=3).measure(task.metric, 5)[0]
    clean = measure(net, batch, task.metric, [edits]).base
    np.testing.assert_allclose(found, (clean - through_everything).mean(-1), atol=1e-4)


def test_a_few_bytes_at_once_give_the_same_twins() -> None:
    net = network.open(Induction().eval(), example={"input_ids": torch.arange(16)[None]})
    task = induction_task(n=16)
    batch = task.split("find")
    route = Route((Node(Site.parse("blocks.0.attn.z[2]")),), (Node(Site.parse("blocks.1.attn.k[7]")),))
    wiring = Wiring.of(net, batch.clean.take([0]))
    much, little = (
        Router(wiring, batch, task.metric, "clean", "frozen", budget).twins(route, 4, seed=0) for budget in (2**30, 1)
    )
    np.testing.assert_allclose(much, little, atol=1e-5)


def test_matched_paths_are_different_and_as_far_apart() -> None:
    wiring = Wiring.of(network.open(tiny.build("gpt2")), {"input_ids": tiny.token_ids(1, LENGTH)})
    senders = (Node(Site.parse("blocks.0.attn.z[1]"), Where(group="last")), Node(Site.parse("blocks.0.attn.z[2]")))
    route = Route(senders, (Node(Site.parse("blocks.1.attn.k[0]")),))
    found = alike(wiring, route, 40, np.random.default_rng(0))
    assert len(found) == 40
    for other in found:
        end = other.receivers[0].site.block
        assert end is not None
        assert [n.site.block for n in other.senders] == [end - 1, end - 1]
        assert [n.site.kind for n in other.senders] == ["attn.z", "attn.z"]
        assert [n.where for n in other.senders] == [n.where for n in senders]
        assert (set(other.senders), set(other.receivers)) != (set(senders), set(route.receivers))
    assert len({(frozenset(r.senders), frozenset(r.receivers)) for r in found}) == 40
    assert {other.senders[0].site.block for other in found} == {0, 1}
