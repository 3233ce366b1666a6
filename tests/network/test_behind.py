"""Runs from a site on, against whole runs."""

from __future__ import annotations

import pytest
import torch

from openwork import network
from openwork.edit import Ablate, Scale
from openwork.errors import BadInput, UnknownName
from openwork.network import Behind, Network
from openwork.task import Inputs, Tensors

from .seeing import images, see
from .tiny import token_ids

ROWS = 5
SITES = {"cnn": ("module:stages.0.out", "module:stages.1.out"), "vit": ("blocks.0.resid_post", "blocks.1.attn.out")}


@pytest.fixture(scope="module", params=sorted(SITES))
def case(request: pytest.FixtureRequest) -> tuple[Network, torch.Tensor, str, str]:
    return network.open(see(request.param), name=request.param), images(ROWS), *SITES[request.param]


@pytest.mark.parametrize("rows", [None, [1, 2, 3], [4, 0]], ids=["all", "some in a row", "some"])
def test_they_are_those_of_whole_runs(case: tuple[Network, torch.Tensor, str, str], rows: list[int] | None) -> None:
    net, values, first, last = case
    later = Behind(net, values, first)
    for edit in (Ablate(f"{first}[1]"), Scale(first, factor=3.0), Ablate(f"{last}[2]")):
        got = later.run(rows, edits=edit, keep=last)
        whole = net.run(values if rows is None else values[rows], edits=edit, keep=last)
        torch.testing.assert_close(got[last], whole[last], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got.logits, whole.logits, rtol=1e-5, atol=1e-6)


def test_they_may_stop_and_be_unedited(case: tuple[Network, torch.Tensor, str, str]) -> None:
    net, values, first, last = case
    got = Behind(net, Tensors({net.preparer.main: values}), first).run(keep=last, until=last)
    torch.testing.assert_close(got[last], net.run(values, keep=last)[last], rtol=1e-5, atol=1e-6)


def test_what_comes_before_is_not_computed(case: tuple[Network, torch.Tensor, str, str]) -> None:
    net, values, first, last = case
    later, called = Behind(net, values, first), []
    inner = {name: module for name, module in net.root.named_modules() if not list(module.children())}
    original = {name: type(module).forward for name, module in inner.items()}
    handles = [m.register_forward_hook(lambda m, a, o, n=n: called.append(n)) for n, m in inner.items()]
    later.run(edits=Ablate(f"{first}[0]"), keep=last)
    behind = len(called)
    net.run(values, edits=Ablate(f"{first}[0]"), keep=last)
    for handle in handles:
        handle.remove()
    assert behind < len(called) - behind
    assert all("forward" not in m.__dict__ and type(m).forward is original[n] for n, m in inner.items())


def test_tokens_too(gpt2: Network) -> None:
    rows = Inputs(tuple(tuple(row) for row in token_ids(4).tolist()))
    edit = Ablate("blocks.1.mlp.out", 2)
    got = Behind(gpt2, rows, "blocks.1.mlp.out").run([2, 0], edits=edit)
    torch.testing.assert_close(got.logits, gpt2.run(rows.take([2, 0]), edits=edit).logits, rtol=1e-5, atol=1e-5)


def test_edits_before_the_site_are_refused(case: tuple[Network, torch.Tensor, str, str]) -> None:
    net, values, first, last = case
    with pytest.raises(BadInput, match="comes before it"):
        Behind(net, values, last).run(edits=Ablate(f"{first}[0]"))
    with pytest.raises(UnknownName):
        Behind(net, values, "module:no.such.out")
