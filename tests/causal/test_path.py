"""Path patching against hand-placed hooks on whole forward passes, and on networks whose edges are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from openwork import network
from openwork.causal.claims import Standard
from openwork.causal.path import PathPatching, patch_edges, patch_path
from openwork.causal.result import Result
from openwork.circuit import Node
from openwork.errors import BadInput, SiteRefused, UnknownName
from openwork.network import Network
from openwork.site import Site, Where
from openwork.task import Task
from openwork.zoo.induction import Induction, Plant

from ..network import oracle, tiny


LENGTH, ROWS, BLOCKS = 7, 4, 3
STATED = PathPatching(claims=0)


@cache
def opened(kind: str) -> Network:
    return network.open(tiny.build(kind), name=kind)


def task_of(rows: int = ROWS, **more: Any) -> Task:
    clean, corrupted = tiny.token_ids(rows, LENGTH), tiny.token_ids(rows, LENGTH, seed=5)
    right, wrong = (torch.arange(rows) + start for start in (5, 25))
    return Task.from_tokens(clean, corrupted, right, wrong, held_out=range(rows // 2, rows), **more)


# -- the slow way: one forward pass with hooks for each stage, each module named by hand --

NAMES: dict[str, dict[str, str]] = {
    "gpt2": {
        "block": "transformer.h.{}", "o": "attn.c_proj", "attn": "attn", "mlp": "mlp", "qkv": "attn.c_attn",
        "attn_out": "attn", "mlp_out": "mlp", "last": "transformer.h.2",
    },
    "llama": {
        "block": "model.layers.{}", "o": "self_attn.o_proj", "mlp": "mlp", "q": "self_attn.q_proj",
        "k": "self_attn.k_proj", "v": "self_attn.v_proj", "attn_out": "self_attn", "mlp_out": "mlp",
        "last": "model.layers.2",
    },
    "neox": {
        "block": "gpt_neox.layers.{}", "o": "attention.dense", "mlp": "mlp", "qkv": "attention.query_key_value",
        "attn_out": "attention", "mlp_out": "mlp", "last": "gpt_neox.layers.2",
    },
    "falcon": {
        "block": "transformer.h.{}", "o": "self_attention.dense", "mlp": "mlp",
        "qkv": "self_attention.query_key_value", "attn_out": "self_attention", "mlp_out": "mlp",
        "last": "transformer.h.2",
    },
}  # fmt: skip
NAMES["granite"] = NAMES["llama"]
NAMES["gemma2"] = NAMES["llama"]
PARALLEL = ("neox", "falcon")


class Slow:
    """The two stages of path patching with plain hooks, as the papers describe them.

    A frozen sub-layer is one whose module returns what it returned on the base inputs. A sender is the slice of what
    the output projection reads (a head), or what the MLP returns. Queries, keys and values are columns of projections.
    """

    def __init__(self, kind: str, clean: Tensor, corrupted: Tensor):
        self.kind, self.names, self.module = kind, NAMES[kind], opened(kind).module
        self.clean, self.corrupted = clean, corrupted
        every = [self.place(b, x) for b in range(BLOCKS) for x in ("attn_out", "mlp_out")]
        every += [(self.place(b, "o")[0], "in") for b in range(BLOCKS)]
        self.plain, self.donor = (oracle.watch(self.module, {"input_ids": x}, every) for x in (clean, corrupted))

    def place(self, block: int, name: str) -> tuple[str, str]:
        return f"{self.names['block'].format(block)}.{self.names[name]}", "out"

    def columns(self, part: str, index: int) -> slice:
        """Where a head or group lies in what the (fused) projection returns."""
        width = tiny.HEAD
        if self.kind == "neox":  # for each head its query, key and value
            start = index * 3 * width + "qkv".index(part) * width
        elif self.kind == "gpt2":
            start = "qkv".index(part) * tiny.WIDTH + index * width
        elif self.kind == "falcon":  # all queries, then the one key and the one value
            start = {"q": index, "k": tiny.HEADS, "v": tiny.HEADS + 1}[part] * width
        else:
            start = index * width
        return slice(start, start + width)

    def reader(self, receiver: Site) -> tuple[tuple[str, str], slice]:
        """Where a receiver reads, and which channels of that."""
        if receiver.path == "logits":
            return (self.names["last"], "out"), slice(None)
        assert receiver.block is not None
        if receiver.kind == "mlp.in":
            return (self.place(receiver.block, "mlp")[0], "in"), slice(None)
        part = receiver.kind[-1]
        name = "qkv" if "qkv" in self.names else part
        return self.place(receiver.block, name), self.columns(part, receiver.index[0])

    def sent(self, sender: Site, at: slice | list[int]) -> tuple[tuple[str, str], Callable[[Tensor], Tensor]]:
        """The hook that gives a sender the value of the corrupted run, and no other part of its sub-layer."""
        assert sender.block is not None
        if sender.kind == "attn.z":
            place = (self.place(sender.block, "o")[0], "in")
            part = slice(sender.index[0] * tiny.HEAD, (sender.index[0] + 1) * tiny.HEAD)
        else:
            place, part = self.place(sender.block, sender.kind.replace(".", "_")), slice(None)

        def write(value: Tensor) -> Tensor:
            out = self.plain[place].clone()
            out[:, at, part] = self.donor[place][:, at, part]
            return out

        return place, write

    def __call__(
        self, sender: Site, receiver: Site, at: slice | list[int] = slice(None), live: bool = False
    ) -> Tensor:
        """The logits when only what the receiver reads of the sender changes."""
        hooks: dict[tuple[str, str], Callable[[Tensor], Tensor | None]] = {}
        for block in range(BLOCKS):
            for name in ("attn_out",) if live else ("attn_out", "mlp_out"):
                place = self.place(block, name)
                if not (block == sender.block and sender.kind == "attn.z" and name == "attn_out"):
                    hooks[place] = lambda value, place=place: self.plain[place].clone()
        place, write = self.sent(sender, at)
        seen: dict[str, Tensor] = {}
        where, columns = self.reader(receiver)
        hooks[place] = write

        def note(value: Tensor) -> None:
            seen["value"] = value.clone()

        assert where not in hooks
        oracle.forward(self.module, {"input_ids": self.clean}, {**hooks, where: note})

        def read(value: Tensor) -> Tensor:
            out = value.clone()
            out[..., columns] = seen["value"][..., columns]
            return out

        return oracle.forward(self.module, {"input_ids": self.clean}, {where: read})


def heads(kind: str) -> int:
    return {"gpt2": 4, "neox": 4, "falcon": 1}.get(kind, 2)


def cases(kind: str) -> list[tuple[str, str]]:
    groups = heads(kind)
    receivers = [f"blocks.1.attn.q[{i}]" for i in (0, 3)] + [f"blocks.2.attn.q[{i}]" for i in (1, 2)]
    receivers += [f"blocks.{b}.attn.{x}[{groups - 1}]" for b in (1, 2) for x in "kv"]
    receivers += [f"blocks.{b}.mlp.in" for b in (0, 1, 2)] + ["logits"]
    senders = ["blocks.0.attn.z[0]", "blocks.0.attn.z[3]", "blocks.1.attn.z[2]", "blocks.0.mlp.out", "blocks.1.mlp.out"]
    out = []
    for s in senders:
        for r in receivers:
            own, other = Site.parse(s).block, Site.parse(r).block
            assert own is not None
            inside = other == own and r.endswith("mlp.in") and "attn" in s and kind not in PARALLEL
            if other is None or own < other or inside:
                out.append((s, r))
    return out


def difference(logits: Tensor, task: Task) -> np.ndarray:
    rows = torch.arange(len(task))
    last = logits[rows, -1]
    return (last[rows, list(task.answer)] - last[rows, list(task.wrong)]).double().numpy()


def of_find(task: Task, values: np.ndarray) -> np.ndarray:
    return values[[row for row in range(len(task)) if row not in task.held_out]]


def edges(kind: str, task: Task, **more: Any) -> Result:
    senders, receivers = zip(*cases(kind), strict=True)
    return patch_edges(opened(kind), task, dict.fromkeys(senders), dict.fromkeys(receivers), STATED, **more)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "granite", "neox", "falcon"])
def test_edges_are_those_of_two_passes_with_hooks(kind: str) -> None:
    task = task_of()
    slow = Slow(kind, tiny.token_ids(ROWS, LENGTH), tiny.token_ids(ROWS, LENGTH, seed=5))
    table = edges(kind, task).table
    plain = of_find(task, difference(oracle.forward(slow.module, {"input_ids": slow.clean}), task))
    farthest = largest = 0.0
    for sender, receiver in cases(kind):
        expected = of_find(task, difference(slow(Site.parse(sender), Site.parse(receiver)), task))
        got = table["value"].sel(sender=sender, receiver=receiver).to_numpy()
        farthest = max(farthest, np.abs(got - expected).max())
        largest = max(largest, np.abs(expected - plain).max())
    assert farthest < 1e-5
    assert largest > 0.05  # the edges do something
