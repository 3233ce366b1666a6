"""Networks opened once for the whole folder, and a look at the modules when all is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest
from transformers.modeling_utils import AttentionInterface

from openwork import network
from openwork.network import Network

from .oracle import hooks_left
from .tiny import build, example

NEED_EXAMPLE = ("t5", "looped", "perceptron", "pictures")
Opener = Callable[[str], Network]


@pytest.fixture(scope="session")
def opened() -> Iterator[Opener]:
    """``opened("gpt2")``: the network of one kind, the same object for all tests, which must leave it as it was."""
    interface = AttentionInterface.get_interface
    networks: dict[str, Network] = {}

    @cache
    def open_kind(kind: str) -> Network:
        given = example(kind) if kind in NEED_EXAMPLE else None
        networks[kind] = network.open(build(kind), example=given, name=kind)
        return networks[kind]

    yield open_kind
    assert {kind: hooks_left(net.module) for kind, net in networks.items()} == {kind: [] for kind in networks}
    assert AttentionInterface.get_interface is interface


@pytest.fixture(scope="session")
def gpt2(opened: Opener) -> Network:
    return opened("gpt2")


@pytest.fixture(scope="session")
def llama(opened: Opener) -> Network:
    return opened("llama")
