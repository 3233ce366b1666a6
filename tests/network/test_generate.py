"""Generation with a cache and edits is what full forward passes, each with the same edits by hand, would write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from openwork import network
from openwork.edit import Ablate, Add, Custom, Edit, KnockOut, Patch, Scale, Set, Substitute
from openwork.errors import BadInput, EditMissed, UnknownName
from openwork.network import Network
from openwork.site import Where
from openwork.task import Inputs

from .conftest import Opener
from .oracle import Counting, forward, hooks_left, places
from .tiny import HEAD, WIDTH, build, token_ids

PROMPT, STEPS = (5, 6, 7, 8, 9, 10, 11), 6
ROWS = (PROMPT, (12, 13, 14), (20, 21, 22, 23, 24))
CACHED = ("gpt2", "llama", "gemma2", "mistral", "gpt-oss", "neox", "falcon", "bloom")
VECTOR = 3.0 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(4))


def greedy(row: tuple[int, ...], predict: Callable[[Tensor], Tensor]) -> list[int]:
    """What `predict`, a whole forward pass for every token, writes after the row."""
    ids = list(row)
    for _ in range(STEPS):
        ids.append(int(predict(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(row) :]


def hooked(net: Network, kind: str, site: str, row: tuple[int, ...], change: Callable[..., None]) -> list[int]:
    """Greedy with a plain hook: ``change(value, prompt)`` overwrites what it wants of the whole sequence."""
    place = places(kind, 3)[site]

    def write(value: Tensor) -> Tensor:
        value = value.clone()
        change(value, len(row))
        return value

    return greedy(row, lambda ids: forward(net.module, {"input_ids": ids}, {place: write}))


def head(value: Tensor, prompt: int) -> None:
    value[..., HEAD : 2 * HEAD] *= -4


def prefill(value: Tensor, prompt: int) -> None:
    value[:, :prompt] += VECTOR


def after(value: Tensor, prompt: int) -> None:
    value[:, prompt:] += VECTOR


def third(value: Tensor, prompt: int) -> None:
    value[:, prompt + 1 : prompt + 2] += VECTOR


def newest(value: Tensor, prompt: int) -> None:
    value[:, prompt - 1 :] += VECTOR


def second_position(value: Tensor, prompt: int) -> None:
    value[:, 1] += VECTOR


def from_the_end(value: Tensor, prompt: int) -> None:
    value[:, prompt - 2] += VECTOR


CASES: dict[str, tuple[Edit, Callable[..., None]]] = {
    "a head everywhere": (Scale("blocks.1.attn.z[1]", factor=-4.0), head),
    "the prefill": (Add("blocks.1.resid_post", Where(steps=(0,)), vector=VECTOR), prefill),
    "every cached step": (Add("blocks.1.resid_post", Where(since=1), vector=VECTOR), after),
    "one cached step": (Add("blocks.1.resid_post", Where(steps=(2,)), vector=VECTOR), third),
    "the newest token": (Add("blocks.1.resid_post", -1, vector=VECTOR), newest),
    "the last group": (Add("blocks.1.resid_post", "last", vector=VECTOR), newest),
    "a position of the prompt": (Add("blocks.1.resid_post", 1, vector=VECTOR), second_position),
    "a position from the prompt's end": (Add("blocks.1.resid_post", -2, vector=VECTOR), from_the_end),
}


@pytest.mark.parametrize(("edit", "change"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "gpt-oss", "bloom"])
def test_edits_hold_at_prefill_and_cached_steps(
    opened: Opener, kind: str, edit: Edit, change: Callable[..., None]
) -> None:
    net = opened(kind)
    expected = [hooked(net, kind, edit.site.path, row, change) for row in ROWS]
    assert net.generate(Inputs((PROMPT,)), max_new_tokens=STEPS, edits=edit).ids == expected[:1]
    assert net.generate(Inputs(ROWS), max_new_tokens=STEPS, edits=edit).ids == expected


@pytest.mark.parametrize("kind", CACHED)
def test_without_edits_it_writes_what_the_module_writes(opened: Opener, kind: str) -> None:
    net = opened(kind)
    expected = [greedy(row, lambda ids: forward(net.module, {"input_ids": ids})) for row in ROWS]
    result = net.generate(Inputs(ROWS), max_new_tokens=STEPS)
    assert result.ids == expected
    assert result.texts is None
    assert str(expected[0]) in str(result)


def test_the_edits_matter(opened: Opener) -> None:
    """The cases above would pass idly if edits changed no token."""
    nets = [opened(kind) for kind in ("gpt2", "llama", "bloom")]
    plain = [net.generate(Inputs(ROWS), max_new_tokens=STEPS).ids for net in nets]
    for name, (edit, _) in CASES.items():
        assert [net.generate(Inputs(ROWS), max_new_tokens=STEPS, edits=edit).ids for net in nets] != plain, name


@pytest.mark.parametrize("kind", CACHED)
def test_the_cache_is_used(opened: Opener, kind: str) -> None:
    net, lengths = opened(kind), []
    site = "blocks.1.resid_post"

    def look(value: Tensor) -> Tensor:
        lengths.append(value.shape[1])
        return value

    net.generate(Inputs((PROMPT,)), max_new_tokens=4, edits=Custom(site, fn=look))
    assert lengths == [7, 1, 1, 1]


# -- keys and values in the cache, attention edges --


def run_greedy(net: Network, row: tuple[int, ...], edits_at: Callable[[int], Any]) -> list[int]:
    """Greedy by whole runs with edits, which other tests hold against plain hooks."""
    return greedy(row, lambda ids: net.run(ids, edits=edits_at(len(row))).logits)


@pytest.mark.parametrize("kind", CACHED)
def test_edges_stay_cut_in_the_cache(opened: Opener, kind: str) -> None:
    net = opened(kind)
    edits = [
        KnockOut("blocks.1.attn.scores[2]", keys=Where(positions=(1, 4))),
        KnockOut("blocks.0.attn", keys=Where(positions=(2,))),
    ]
    expected = [run_greedy(net, row, lambda n: edits) for row in ROWS]
    assert net.generate(Inputs(ROWS), max_new_tokens=STEPS, edits=edits).ids == expected


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "bloom"])
def test_edges_cut_from_a_step_on(opened: Opener, kind: str) -> None:
    net = opened(kind)

    for row in ROWS:
        keys = Where(positions=(0, len(row) - 1))
        late = Where(since=1)

        def predict(ids: Tensor, row: tuple[int, ...] = row, keys: Where = keys) -> Tensor:
            if ids.shape[1] == len(row):
                return net.run(ids).logits
            queries = Where(positions=tuple(range(len(row), ids.shape[1])))
            return net.run(ids, edits=KnockOut("blocks.*.attn", where=queries, keys=keys)).logits

        edit = KnockOut("blocks.*.attn", where=late, keys=keys)
        assert net.generate(Inputs((row,)), max_new_tokens=STEPS, edits=edit).ids == [greedy(row, predict)]


@pytest.mark.parametrize("part", ["k[1]", "v[0]"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "mistral", "gpt-oss", "bloom"])
def test_cached_keys_and_values_are_edited_whenever_they_are_read(opened: Opener, kind: str, part: str) -> None:
    net = opened(kind)
    edit = Scale(f"blocks.1.attn.{part}", factor=-3.0, where=1)
    expected = [run_greedy(net, row, lambda n: edit) for row in ROWS]
    assert net.generate(Inputs(ROWS), max_new_tokens=STEPS, edits=edit).ids == expected


def test_values_everywhere_are_scaled_once_however_often_they_are_read(gpt2: Network) -> None:
    edit = Scale("blocks.1.attn.v", factor=-3.0)
    expected = run_greedy(gpt2, PROMPT, lambda n: edit)
    assert gpt2.generate(Inputs((PROMPT,)), max_new_tokens=STEPS, edits=edit).ids == [expected]


def test_only_the_layer_with_a_written_pattern_leaves_its_kernel(gpt2: Network) -> None:
    with Counting() as counting:
        gpt2.generate(Inputs((PROMPT,)), max_new_tokens=4, edits=KnockOut("blocks.1.attn", keys=0))
    assert counting.calls["scaled_dot_product_attention"] == 2 * 4


# -- sources --


def test_a_source_is_patched_in_at_the_prefill(opened: Opener) -> None:
    net, source = opened("gpt2"), token_ids(1, 7, seed=9)
    site = "blocks.1.resid_post"
    value = net.run(source, keep=site)[site]

    def patch(here: Tensor, prompt: int) -> None:
        here[:, 3] = value[:, 3]

    edit = Patch(site, 3)
    expected = hooked(net, "gpt2", site, PROMPT, patch)
    got = net.generate(Inputs((PROMPT,)), max_new_tokens=STEPS, edits=edit, sources={"clean": source})
    assert got.ids == [expected]


def test_a_mean_holds_at_every_step(gpt2: Network) -> None:
    site = "blocks.1.mlp.out"
    mean = gpt2.run(Inputs((PROMPT,)), keep=site)[site][0].mean(0)

    def flat(here: Tensor, prompt: int) -> None:
        here[:] = mean

    edit = Ablate(site, how="mean")
    expected = hooked(gpt2, "gpt2", site, PROMPT, flat)
    assert gpt2.generate(Inputs((PROMPT,)), max_new_tokens=STEPS, edits=edit).ids == [expected]


def test_a_surrogate_stands_in_at_every_step(gpt2: Network) -> None:
    site = "blocks.1.mlp.out"

    def half(here: Tensor, prompt: int) -> None:
        here *= -0.5

    edit = Substitute(site, by="half")
    got = gpt2.generate(
        Inputs((PROMPT,)), max_new_tokens=STEPS, edits=edit, surrogates={"half": lambda value: -0.5 * value}
    )
    assert got.ids == [hooked(gpt2, "gpt2", site, PROMPT, half)]


# -- other inputs, other modules --


def test_a_left_padded_batch(gpt2: Network) -> None:
    ids, mask = torch.full((3, 7), 3), torch.zeros(3, 7, dtype=torch.long)
    for number, row in enumerate(ROWS):
        ids[number, 7 - len(row) :], mask[number, 7 - len(row) :] = torch.tensor(row), 1
    edit = CASES["the newest token"][0]
    expected = [hooked(gpt2, "gpt2", edit.site.path, row, newest) for row in ROWS]
    got = gpt2.generate({"input_ids": ids, "attention_mask": mask}, max_new_tokens=STEPS, edits=edit)
    assert got.ids == expected


def test_a_right_padded_batch(gpt2: Network) -> None:
    ids, mask = torch.full((3, 7), 3), torch.zeros(3, 7, dtype=torch.long)
    for number, row in enumerate(ROWS):
        ids[number, : len(row)], mask[number, : len(row)] = torch.tensor(row), 1
    edit = CASES["the newest token"][0]
    expected = [hooked(gpt2, "gpt2", edit.site.path, row, newest) for row in ROWS]
    got = gpt2.generate({"input_ids": ids, "attention_mask": mask}, max_new_tokens=STEPS, edits=edit)
    assert got.ids == expected


def test_groups_of_ragged_rows(gpt2: Network) -> None:
    inputs = Inputs(ROWS, {"name": ((0, 6), (2,), ())})
    site = "blocks.1.resid_post"
    expected = []
    for row, at in zip(ROWS, inputs.groups["name"], strict=True):

        def change(value: Tensor, prompt: int, at: tuple[int, ...] = at) -> None:
            for position in at:
                value[:, position] = 0.5

        expected.append(hooked(gpt2, "gpt2", site, row, change))
    assert gpt2.generate(inputs, max_new_tokens=STEPS, edits=Set(site, "name", value=0.5)).ids == expected


@pytest.mark.parametrize("rows", [ROWS, (PROMPT,)], ids=["unequal rows", "one row"])
def test_a_module_without_generate_decodes_by_whole_forward_passes(
    opened: Opener, rows: tuple[tuple[int, ...], ...]
) -> None:
    net = opened("attention-only")
    for edit, change in CASES.values():
        expected = [hooked(net, "attention-only", edit.site.path, row, change) for row in rows]
        assert net.generate(Inputs(rows), max_new_tokens=STEPS, edits=edit).ids == expected
    with pytest.raises(BadInput, match="decodes greedily"):
        net.generate(Inputs(rows), max_new_tokens=STEPS, do_sample=True)


def test_an_encoder_decoder_starts_from_its_own_token(opened: Opener) -> None:
    net = opened("t5")
    place = ("decoder.block.1.layer.0.SelfAttention.o", "in")

    def write(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., HEAD : 2 * HEAD] *= -4
        return value

    ids = [1]
    for _ in range(STEPS):
        kwargs = {"input_ids": torch.tensor([PROMPT]), "decoder_input_ids": torch.tensor([ids])}
        ids.append(int(forward(net.module, kwargs, {place: write})[0, -1].argmax()))
    edit = Scale("decoder.blocks.1.attn.z[1]", factor=-4.0)
    got = net.generate({"input_ids": torch.tensor([PROMPT])}, max_new_tokens=STEPS, edits=edit)
    assert got.ids == [ids[1:]]
    assert got.ids != net.generate({"input_ids": torch.tensor([PROMPT])}, max_new_tokens=STEPS).ids


def test_text_ends_at_the_end_of_sequence_token() -> None:
    class Letters:
        all_special_ids = (59,)
        pad_token_id = 0
        eos_token_id = 59

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [ord(c) - 60 for c in text]}

        def decode(self, ids: list[int]) -> str:
            return "".join(chr(i + 60) for i in ids)

    net = network.open(build("gpt2"), tokenizer=Letters())
    free = net.generate("ABCD", max_new_tokens=4)
    assert free.texts == [net.decode(free.ids[0])]
    bias = torch.zeros(60)
    bias[59] = 1e4
    ended = net.generate("ABCD", max_new_tokens=4, edits=Add("logits", Where(since=2), vector=bias))
    assert ended.ids == [free.ids[0][:2]]


# -- what is refused --


def test_an_edit_that_never_fires(gpt2: Network) -> None:
    with pytest.raises(EditMissed, match=r"blocks\.1\.attn\.z.*never fired"):
        gpt2.generate(Inputs((PROMPT,)), max_new_tokens=2, edits=Ablate("blocks.1.attn.z", Where(steps=(7,))))
    assert hooks_left(gpt2.module) == []


def test_what_cannot_generate(opened: Opener, gpt2: Network) -> None:
    with pytest.raises(BadInput, match="reads no tokens"):
        opened("vit").generate({"pixel_values": torch.zeros(1, 3, 16, 16)}, max_new_tokens=2)
    with pytest.raises(BadInput, match="at least 1"):
        gpt2.generate(Inputs((PROMPT,)), max_new_tokens=0)
    with pytest.raises(UnknownName, match=r"blocks\.1\.attn\.z"):
        gpt2.generate(Inputs((PROMPT,)), max_new_tokens=2, edits=Ablate("blocks.1.attn.zz"))
    with pytest.raises(BadInput, match="48"):
        gpt2.generate(Inputs((PROMPT,)), max_new_tokens=43)
    with pytest.raises(BadInput, match="48"):
        opened("attention-only").generate(Inputs((PROMPT,)), max_new_tokens=43)


def test_a_function_that_raises_at_a_cached_step_leaves_nothing(gpt2: Network) -> None:
    calls: list[int] = []

    def fail(value: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise ZeroDivisionError
        return value

    with pytest.raises(ZeroDivisionError):
        gpt2.generate(Inputs((PROMPT,)), max_new_tokens=5, edits=Custom("blocks.1.mlp.out", fn=fail))
    assert len(calls) == 3
    assert hooks_left(gpt2.module) == []
