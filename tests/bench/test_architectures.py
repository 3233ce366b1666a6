"""The bench of architectures: its check of norms tells two apart whose scales are equal numbers."""
# pyright: reportMissingImports=false

from __future__ import annotations

import pytest

from architectures_check import Judge
from openwork import network
from openwork.network import Network
from tiny_base import Tiny
from tiny_models import build

FIRST, SECOND = "blocks.1.norm1.scale", "blocks.1.norm2.scale"


@pytest.fixture
def neox() -> tuple[Tiny, Network]:
    tiny = build("gpt_neox")
    return tiny, network.open(tiny.module, example=tiny.example)


def wrong(neox: tuple[Tiny, Network]) -> list[str]:
    return [line.split(" (")[0] for line in Judge(*neox, seed=0, writes=2).judge().wrong]


def test_two_norms_of_one_stream_are_two(neox: tuple[Tiny, Network]) -> None:
    run = neox[1].run(neox[0].example, keep=[FIRST, SECOND])
    assert run[FIRST].equal(run[SECOND])
    assert wrong(neox) == []


def test_exchanged_norms_are_seen(neox: tuple[Tiny, Network]) -> None:
    ports = neox[1].map.ports
    ports[FIRST], ports[SECOND] = ports[SECOND], ports[FIRST]
    assert wrong(neox) == [f"{site}: is the scale of another norm" for site in (FIRST, SECOND)]


def test_one_norm_under_two_names_is_seen(neox: tuple[Tiny, Network]) -> None:
    ports = neox[1].map.ports
    ports[SECOND] = ports[FIRST]
    assert f"{SECOND}: is the same norm as {FIRST}" in wrong(neox)
