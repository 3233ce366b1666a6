# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalSubscript=false
"""Class prompts, and the heads and patches that they show, where both are known."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import openwork as ow
from openwork.errors import BadInput
from openwork.vision.passes import encoded
from openwork.vision.tokens.prompts import ClassPrompts, learn_prompts
from openwork.vision.tokens.traits import Traits, traits
from openwork.worlds.picture_array import PictureArray

from . import planted_vit as planted

FEW = ClassPrompts(steps=60, batch=24)


@pytest.fixture(scope="module")
def net():
    return planted.network()


@pytest.fixture(scope="module")
def prompts(net):
    return learn_prompts(net, planted.pictures(192, 2)[0], FEW)


@pytest.fixture(scope="module")
def shown(net, prompts):
    return traits(net, prompts, planted.pictures(96, 3)[0])


def slow_logits(net, prompts, pixels):
    """Equations 4 to 7 with torch alone: fresh prompts at every block, the last ones scored."""
    module, n = net.module, prompts.patches
    with torch.no_grad():
        state = module.vit.embeddings(net.images.encode(pixels.float() / 255))
        for number, block in enumerate(module.vit.layers):
            if number in prompts.tokens:
                state = torch.cat((state[:, :n], prompts.tokens[number].expand(len(state), -1, -1)), 1)
            state = block(state, None)
            state = state[0] if isinstance(state, tuple) else state
        return module.vit.layernorm(state)[:, n:] @ prompts.scorer


@pytest.mark.parametrize("deep", [True, False])
def test_logits_are_those_of_the_paper(net, deep):
    corpus = planted.pictures(12, 4)[0]
    prompts = learn_prompts(net, corpus, ClassPrompts(deep=deep, steps=2))
    run = net.run(encoded(net, corpus.values), keep=prompts.readout, edits=prompts.edits())
    assert torch.allclose(prompts.logits(run), slow_logits(net, prompts, corpus.values), atol=1e-4)


def test_a_step_follows_the_gradient_of_the_mean_loss(net):
    corpus = planted.pictures(8, 5)[0]
    rate = 1e-3
    one = learn_prompts(net, corpus, ClassPrompts(steps=1, batch=8, rate=rate, seed=1))
    begun = learn_prompts(net, corpus, ClassPrompts(steps=1, batch=8, rate=1e-12, seed=1))
    generator = torch.Generator().manual_seed(1)
    for token in begun.tokens.values():
        torch.randn(token.shape, generator=generator)
    torch.randn(begun.scorer.shape, generator=generator)
    picked = torch.randint(8, (8,), generator=generator).tolist()
    tokens = {b: t.clone().requires_grad_() for b, t in begun.tokens.items()}
    module, n = net.module, begun.patches
    state = module.vit.embeddings(net.images.encode(corpus.values[picked].float() / 255))
    for number, block in enumerate(module.vit.layers):
        state = torch.cat((state[:, :n], tokens[number].expand(len(state), -1, -1)), 1)
        state = block(state, None)
        state = state[0] if isinstance(state, tuple) else state
    logits = module.vit.layernorm(state)[:, n:] @ begun.scorer
    loss = F.cross_entropy(logits, corpus.labels[picked])
    for block, grad in zip(tokens, torch.autograd.grad(loss, tokens.values()), strict=True):
        moved = one.tokens[block] - begun.tokens[block]
        clear = grad.abs() > 1e-5  # the first step of Adam goes by the sign alone
        assert clear.float().mean() > 0.5 or block == 0  # nothing looks at the prompts of the first block
        assert torch.allclose(moved[clear], -rate * grad.sign()[clear], rtol=1e-2)


def test_learning_leaves_the_network_as_it_was(net):
    before = {name: value.clone() for name, value in net.module.state_dict().items()}
    learn_prompts(net, planted.pictures(12, 4)[0], ClassPrompts(steps=2))
    assert all(torch.equal(value, before[name]) for name, value in net.module.state_dict().items())
    assert all(p.grad is None for p in net.module.parameters())


def test_the_silent_head_is_blurred_first(shown):
    left = shown.table["left"].values
    first = (left[:, planted.SILENT] == 0).reshape(-1, 3).mean(0)
    known = shown.table["trait"].values == 1 - planted.SILENT
    assert (first > 0.9).sum() >= 2  # of the class that is known by what it lacks, neither head matters
    assert known.sum() >= 2


def test_blurring_is_equal_attention_of_the_prompt(net, prompts):
    corpus = planted.pictures(6, 4)[0]
    where = ow.Where((prompts.position(1),), rows=(2,))
    edits = [*prompts.edits(), ow.Set("blocks.1.attn.scores[0]", where, value=0.0)]
    pattern = net.run(encoded(net, corpus.values), keep="blocks.1.attn.pattern", edits=edits)["blocks.1.attn.pattern"]
    width = prompts.patches + prompts.classes
    assert torch.allclose(pattern[2, 0, prompts.position(1)], torch.full((width,), 1 / width))
    assert not torch.allclose(pattern[2, 0, prompts.position(0)], torch.full((width,), 1 / width))


def test_the_trait_is_found_where_it_was_planted(shown):
    # one class may be known by what it lacks, so that its prompt has nothing to look for
    place = planted.pictures(96, 3)[1].numpy()
    maps = shown.table["attention"].values[:, 1 - planted.SILENT].reshape(96, -1)
    hit = (maps.argmax(1) == place).reshape(-1, 3).mean(0)
    assert (hit > 0.9).sum() >= 2


def test_the_patches_it_looks_at_carry_the_class(shown):
    assert shown.findings[1].verdict == "supported"
    assert shown.findings[0].estimate > shown.findings[0].control.mean  # two heads are too few for a test


def test_attention_lies_within_the_part_that_is_the_class(shown):
    lift = shown.table["lift"].values
    assert (np.diag(lift) > 3).sum() >= 2


def test_pictures_of_one_class_are_refused(net):
    corpus, _ = planted.pictures(12, 4)
    same = PictureArray(corpus.values, labels=torch.zeros(12, dtype=torch.long))
    with pytest.raises(BadInput, match="two classes"):
        learn_prompts(net, same, FEW)


def test_one_image_of_each_class_is_refused(net, prompts):
    corpus, _ = planted.pictures(3, 4)
    with pytest.raises(BadInput, match="two images"):
        traits(net, prompts, corpus)


def test_a_network_without_patch_tokens_is_refused():
    net = ow.open(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(3)).eval())
    with pytest.raises(BadInput, match="vision transformer"):
        learn_prompts(net, planted.pictures(12, 4)[0], FEW)


@pytest.mark.parametrize(
    ("knobs", "cls"), [({"steps": 0}, ClassPrompts), ({"rate": 0.0}, ClassPrompts), ({"share": 1.0}, Traits)]
)
def test_knobs_out_of_range_are_refused(knobs, cls):
    with pytest.raises(BadInput, match="expected"):
        cls(**knobs)
