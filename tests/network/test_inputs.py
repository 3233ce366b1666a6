"""What goes in: text, ragged rows, padding on either side; the numbers are those of rows run one by one."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from openwork import network
from openwork.edit import Ablate, Add, KnockOut, Scale
from openwork.errors import BadInput
from openwork.network import Network
from openwork.site import Where
from openwork.task import Inputs

from .conftest import Opener
from .oracle import forward, inner, watch
from .tiny import CAUSAL, VOCABULARY, build, example, token_ids

ROWS = ((5, 6, 7, 8, 9, 10, 11), (12, 13, 14), (20, 21, 22, 23, 24))
SITES = ("blocks.1.resid_post", "blocks.1.attn.q", "blocks.1.attn.z", "blocks.0.attn.out")
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def padded(side: str) -> dict[str, Tensor]:
    width = max(map(len, ROWS))
    ids, mask = torch.full((len(ROWS), width), 3), torch.zeros(len(ROWS), width, dtype=torch.long)
    for number, row in enumerate(ROWS):
        columns = slice(width - len(row), None) if side == "left" else slice(0, len(row))
        ids[number, columns], mask[number, columns] = torch.tensor(row), 1
    return {"input_ids": ids, "attention_mask": mask}


def alone(net: Network, **options: Any) -> list[Any]:
    """Each row in a batch of its own, without padding."""
    return [net.run(Inputs((row,)), keep=SITES, **options) for row in ROWS]


def agree(net: Network, inputs: Any, **options: Any) -> None:
    run = net.run(inputs, keep=SITES, **options)
    assert run.lengths == (7, 3, 5)
    for number, single in enumerate(alone(net, **options)):
        for site in SITES:
            torch.testing.assert_close(run.rows(site)[number], single[site][0], **CLOSE)
        offset = run.layout.offsets[number]
        logits = run.logits[number, offset : offset + len(ROWS[number])]
        torch.testing.assert_close(logits, single.logits[0], **CLOSE)


PADDED = [*CAUSAL, "bert"]


@pytest.mark.parametrize("kind", PADDED)
def test_ragged_rows_give_what_they_give_alone(opened: Opener, kind: str) -> None:
    agree(opened(kind), Inputs(ROWS))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", PADDED)
def test_padded_rows_give_what_they_give_alone(opened: Opener, kind: str, side: str) -> None:
    agree(opened(kind), padded(side))


@pytest.mark.parametrize("kind", PADDED)
def test_real_token_p_of_ragged_rows_lies_at_p(opened: Opener, kind: str) -> None:
    run = opened(kind).run(Inputs(ROWS), keep="embed")
    assert run.layout.offsets == (0, 0, 0)
    assert run.logits.shape[:2] == (3, 7)
    single = opened(kind).run(Inputs((ROWS[1],)), keep="embed")
    torch.testing.assert_close(run["embed"][1, :3], single["embed"][0], **CLOSE)


@pytest.mark.parametrize("side", ["left", "right", "ragged"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "gpt-oss", "bloom", "attention-only"])
def test_edits_reach_the_same_tokens_however_rows_are_padded(opened: Opener, kind: str, side: str) -> None:
    net = opened(kind)
    inputs = Inputs(ROWS) if side == "ragged" else padded(side)
    options: dict[str, Any] = {
        "edits": [
            Ablate("blocks.0.attn.z[1]", -1),
            Scale("blocks.0.resid_post", (1, -2), factor=2.0),
            Add("blocks.1.resid_pre", "first", vector=0.5),
            KnockOut("blocks.1.attn", where=(2, -1), keys=Where(positions=(0, 1))),
        ]
    }
    agree(net, inputs, **options)
    assert not torch.allclose(net.run(inputs, **options).logits, net.run(inputs).logits)


def test_bert_edits_in_ragged_rows(opened: Opener) -> None:
    edits = [Ablate("blocks.0.attn.z[1]", -1), Ablate("blocks.1.attn.pattern[2]", 1)]
    agree(opened("bert"), Inputs(ROWS), edits=edits)


def test_t5_encoder_rows_of_other_lengths(opened: Opener) -> None:
    net = opened("t5")
    decoder = token_ids(3, 5, seed=2)
    run = net.run({**padded("right"), "decoder_input_ids": decoder}, keep="encoder.blocks.1.resid_post")
    for number, row in enumerate(ROWS):
        kwargs = {"input_ids": torch.tensor([row]), "decoder_input_ids": decoder[[number]]}
        single = net.run(kwargs, keep="encoder.blocks.1.resid_post")
        torch.testing.assert_close(run.logits[number], single.logits[0], **CLOSE)
        site = "encoder.blocks.1.resid_post"
        torch.testing.assert_close(run[site][number, : len(row)], single[site][0], **CLOSE)


def test_derived_position_ids_count_real_tokens_and_outputs_are_those_of_the_bare_module(gpt2: Network) -> None:
    seen: list[Tensor] = []

    def look(module: Any, args: Any) -> None:
        seen.append(args[0].clone())

    handle = inner(gpt2.module, "transformer.wpe").register_forward_pre_hook(look)
    kwargs = padded("left")
    # the first run of a network runs its example too
    gpt2.run(kwargs)
    seen.clear()
    try:
        run = gpt2.run(kwargs)
    finally:
        handle.remove()
    expected = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 1, 2], [0, 0, 0, 1, 2, 3, 4]])
    assert torch.equal(seen[0], expected)
    assert torch.equal(run.logits, forward(gpt2.module, {**kwargs, "position_ids": expected}))


def test_position_ids_that_are_given_stay(gpt2: Network) -> None:
    kwargs = {"input_ids": token_ids(), "position_ids": torch.arange(3, 12)[None].expand(3, -1)}
    assert torch.equal(gpt2.run(kwargs).logits, forward(gpt2.module, kwargs))
    assert not torch.equal(gpt2.run(kwargs).logits, gpt2.run(token_ids()).logits)


def test_the_arguments_of_the_caller_are_not_changed(gpt2: Network) -> None:
    kwargs = padded("left")
    before = {k: v.clone() for k, v in kwargs.items()}
    gpt2.run(kwargs, edits=Ablate("blocks.0.attn.z"))
    assert set(kwargs) == set(before)
    assert all(torch.equal(kwargs[k], before[k]) for k in before)


def test_one_row_of_ids_is_a_batch_of_one(gpt2: Network) -> None:
    ids = token_ids(1)
    assert torch.equal(gpt2.run(ids[0]).logits, gpt2.run(ids).logits)
    assert torch.equal(gpt2.run(Inputs((tuple(ids[0].tolist()),))).logits, gpt2.run(ids).logits)


# -- text --


@pytest.fixture(scope="module")
def reading() -> Network:
    """A network with a tokenizer of letters: ``[pad]``, ``[bos]``, then a to z."""
    words = ["[pad]", "[bos]", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[pad]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[pad]", bos_token="[bos]")
    return network.open(build("gpt2"), tokenizer=fast)


def test_text_is_read_with_the_tokenizer(reading: Network) -> None:
    assert reading.encode("abz") == [2, 3, 27]
    assert reading.tokens([2, 3]) == ["a", "b"]
    assert reading.decode([2, 3]).replace(" ", "") == "ab"
    ids = torch.tensor([[2, 3, 27]])
    assert torch.equal(reading.run("abz").logits, reading.run(ids).logits)
    run = reading.run(["abz", "q"])
    assert run.lengths == (3, 1)
    torch.testing.assert_close(run.logits[1, :1], reading.run("q").logits[0], **CLOSE)


def test_the_dry_run_takes_no_special_tokens(reading: Network) -> None:
    assert not bool(torch.isin(reading.example["input_ids"], torch.tensor([0, 1])).any())


@pytest.mark.parametrize("text", ["", ["abc", ""]])
def test_empty_text(reading: Network, text: Any) -> None:
    with pytest.raises(BadInput, match="empty"):
        reading.run(text)


def test_text_that_makes_no_tokens(reading: Network) -> None:
    class Silent:
        all_special_ids: tuple[int, ...] = ()

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": []}

    net = network.open(reading.module, tokenizer=Silent())
    with pytest.raises(BadInput, match=r"at least one token.*'abc'"):
        net.run("abc")


def test_text_without_a_tokenizer(gpt2: Network) -> None:
    with pytest.raises(BadInput, match="no tokenizer"):
        gpt2.run("abc")
    with pytest.raises(BadInput, match="no tokenizer"):
        gpt2.decode([1])
    with pytest.raises(BadInput, match="no tokenizer"):
        gpt2.tokens([1])


# -- what is refused --


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.tensor([[1, VOCABULARY]]), f"0 to {VOCABULARY - 1}; got {VOCABULARY}"),
        (torch.tensor([[1, -1]]), "got -1"),
        (Inputs(((5, 6), (7, VOCABULARY + 5))), f"got {VOCABULARY + 5}"),
        (torch.ones(2, 49, dtype=torch.long), "at most 48 tokens a row; got 49"),
        (Inputs((tuple([5] * 60), (6,))), "at most 48 tokens a row; got 60"),
        (torch.zeros(1, 0, dtype=torch.long), "at least one"),
        (torch.zeros(0, 4, dtype=torch.long), "at least one"),
        (torch.ones(2, 3), "token ids of shape"),
        (torch.ones(2, 3, 4, dtype=torch.long), "token ids of shape"),
        (3.5, "got float"),
        ({"labels": 3}, "tensor argument, such as input_ids"),
        ({"input_ids": torch.ones(1, 4, dtype=torch.long), "attention_mask": torch.tensor([[1, 0, 1, 1]])}, "row 0"),
        (
            {"input_ids": torch.ones(2, 2, dtype=torch.long), "attention_mask": torch.tensor([[1, 1], [0, 0]])},
            "row 1 has none",
        ),
    ],
    ids=lambda value: re.sub(r"\W+", "-", value)[:30] if isinstance(value, str) else "",
)
def test_inputs_that_do_not_fit(gpt2: Network, inputs: Any, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        gpt2.run(inputs)


def test_booleans_are_no_token_ids(gpt2: Network) -> None:
    with pytest.raises(BadInput, match="token ids"):
        gpt2.run(torch.ones(2, 3, dtype=torch.bool))


def test_pictures_with_nan(opened: Opener) -> None:
    pixels = example("vit")["pixel_values"].clone()
    pixels[0, 0, 0, 0] = torch.nan
    with pytest.raises(BadInput, match="finite"):
        opened("vit").run({"pixel_values": pixels})


def test_padding_for_a_module_that_takes_no_mask(opened: Opener) -> None:
    with pytest.raises(BadInput, match="takes no attention_mask"):
        opened("encoder").run(Inputs(ROWS))


def test_a_mask_is_what_hides_padding(opened: Opener) -> None:
    """BERT's padding is seen by nobody: other pad tokens change nothing."""
    net = opened("bert")
    one, other = padded("right"), padded("right")
    other["input_ids"][1, 3:] = 17
    runs = [net.run(kwargs, keep="blocks.2.resid_post").rows("blocks.2.resid_post")[1] for kwargs in (one, other)]
    assert torch.equal(runs[0], runs[1])
    place = ("bert.encoder.layer.2", "out")
    assert watch(net.module, one, [place])[place].shape == (3, 7, 32)
