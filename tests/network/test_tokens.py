# pyright: reportCallIssue=false
"""Patch tokens that come and go: what `Insert` and `Drop` do to a vision transformer, against its own blocks."""

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

import openwork as ow
from openwork.errors import BadInput
from openwork.network import measure
from openwork.task import LOGIT_DIFFERENCE, Task

CHANNELS, TOKENS = 16, 17


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=CHANNELS,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=4,
        num_labels=5,
    )
    return ViTForImageClassification(config).eval()


@pytest.fixture(scope="module")
def net(module):
    return ow.open(module)


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def by_hand(module, images, before, change):
    """The logits where `change` is made to the tokens that enter block `before`."""
    with torch.no_grad():
        state = module.vit.embeddings(images)
        for number, block in enumerate(module.vit.layers):
            state = change(state) if number == before else state
            state = block(state, None)
            state = state[0] if isinstance(state, tuple) else state
        return module.classifier(module.vit.layernorm(state)[:, 0])


@pytest.mark.parametrize("block", [0, 2])
def test_inserted_tokens_take_part_from_the_site_on(module, net, images, block):
    tokens = torch.randn(4, CHANNELS, generator=torch.Generator().manual_seed(2))
    run = net.run(images, keep="blocks.2.attn.pattern", edits=ow.Insert(f"blocks.{block}.resid_pre", tokens=tokens))
    wanted = by_hand(module, images, block, lambda state: torch.cat((state, tokens.expand(3, -1, -1)), 1))
    assert torch.allclose(run.logits, wanted, atol=1e-5)
    assert run["blocks.2.attn.pattern"].shape == (3, 2, TOKENS + 4, TOKENS + 4)


def test_dropped_tokens_are_never_seen(module, net, images):
    run = net.run(images, keep="blocks.*.resid_post", edits=ow.Drop("blocks.1.resid_pre", positions=[3, 9]))
    kept = [i for i in range(TOKENS) if i not in (3, 9)]
    assert torch.allclose(run.logits, by_hand(module, images, 1, lambda state: state[:, kept]), atol=1e-5)
    widths = [run[f"blocks.{i}.resid_post"].shape[1] for i in range(3)]
    assert widths == [TOKENS, TOKENS - 2, TOKENS - 2]


def test_each_example_may_drop_tokens_of_its_own(net, images):
    rows = [[1, 2], [5, 9], [16, 3]]
    together = net.run(images, edits=ow.Drop("blocks.0.resid_pre", positions=rows)).logits
    for r, row in enumerate(rows):
        alone = net.run(images[r : r + 1], edits=ow.Drop("blocks.0.resid_pre", positions=row)).logits
        assert torch.allclose(together[r], alone[0], atol=1e-5)


def test_dropping_is_cutting_all_looks_at_a_token(net, images):
    dropped = net.run(images, edits=ow.Drop("blocks.0.resid_pre", positions=[4, 7])).logits
    cut = [ow.KnockOut(f"blocks.{i}.attn.scores", keys=ow.Where((4, 7))) for i in range(3)]
    assert torch.allclose(dropped, net.run(images, edits=cut).logits, atol=1e-5)


def test_what_was_inserted_can_be_dropped_again(net, images):
    there = ow.Insert("blocks.0.resid_pre", tokens=torch.ones(2, CHANNELS))
    gone = ow.Drop("blocks.0.resid_pre", positions=[TOKENS, TOKENS + 1])
    assert torch.equal(net.run(images, edits=[there, gone]).logits, net.run(images).logits)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (ow.Insert("blocks.0.resid_pre", tokens=torch.ones(2, 3)), "tokens of 16 channels"),
        (ow.Drop("blocks.0.resid_pre", positions=[17]), "positions up to 17"),
        (ow.Drop("blocks.0.resid_pre", positions=list(range(17))), "not all"),
        (ow.Drop("blocks.0.resid_pre", positions=[[1], [2]]), "for 3 examples"),
        (ow.Drop("blocks.0.attn.pattern", positions=[1]), "whose tokens are patches"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(net, images, edit, said):
    with pytest.raises(BadInput, match=said):
        net.run(images, edits=edit)


def test_texts_keep_their_tokens():
    net = ow.open("py-attn2")
    with pytest.raises(BadInput, match="whose tokens are patches"):
        net.run("def f(a):", edits=ow.Drop("blocks.0.resid_pre", positions=[1]))


def test_measuring_says_that_only_runs_follow_a_change_of_tokens(net, images):
    task = Task.from_tensors(images, images.flip(0), [0, 1, 2], [1, 2, 3])
    with pytest.raises(BadInput, match=r"only net\.run follows"):
        measure(net, task.batch([0, 1]), LOGIT_DIFFERENCE, [[ow.Drop("blocks.0.resid_pre", positions=[1])]])
