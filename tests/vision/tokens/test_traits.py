# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalSubscript=false
"""Class prompts, and the heads and patches that they show, where both are known."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import openwork as ow
from openwork.errors import BadInput
from openwork.results.claims import Standard
from openwork.vision.passes import encoded
from openwork.vision.tokens.prompts import ClassPrompts, learn_prompts
from openwork.vision.tokens.traits import Traits, traits
from openwork.worlds.picture_array import PictureArray
from openwork.zoo.gazing import BLOCKS, COLOURS, PATCH, glances

FEW = ClassPrompts(steps=50, batch=24, rate=0.05)
LAST = BLOCKS - 1


@pytest.fixture(scope="module")
def prompts(net):
    return learn_prompts(net, glances(150, 2, 0.25), FEW)


@pytest.fixture(scope="module")
def corpus():
    return glances(60, 3)


@pytest.fixture(scope="module")
def shown(net, prompts, corpus):
    return traits(net, prompts, corpus, Traits(standard=Standard(alpha=0.2)))


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
    corpus = glances(12, 4)
    prompts = learn_prompts(net, corpus, ClassPrompts(deep=deep, steps=2))
    run = net.run(encoded(net, corpus.values), keep=prompts.readout, edits=prompts.edits())
    assert torch.allclose(prompts.logits(run), slow_logits(net, prompts, corpus.values), atol=1e-4)


def test_a_step_follows_the_gradient_of_the_mean_loss(net):
    corpus = glances(8, 5)
    rate = 1e-3
    one = learn_prompts(net, corpus, ClassPrompts(steps=1, batch=8, rate=rate, seed=1))
    begun = learn_prompts(net, corpus, ClassPrompts(steps=1, batch=8, rate=1e-12, seed=1))
    picked = torch.randint(8, (8,), generator=torch.Generator().manual_seed(10_001)).tolist()
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
    learn_prompts(net, glances(12, 4), ClassPrompts(steps=2))
    assert all(torch.equal(value, before[name]) for name, value in net.module.state_dict().items())
    assert all(p.grad is None for p in net.module.parameters())


def test_the_heads_that_follow_the_parts_are_left_last(known, shown):
    left, labels = shown.table["left"].values, shown.table["label"].values
    for number, colour in enumerate(COLOURS):
        assert (left[labels == colour, known.traits[colour]] == 7).mean() > 0.8
        assert shown.table["trait"].values[number] == known.traits[colour]


def test_every_class_is_known_by_what_it_has(known, net, prompts, corpus):
    site = f"blocks.{LAST}.attn.pattern"
    run = net.run(encoded(net, corpus.values), keep=site, edits=prompts.edits())
    inside = corpus.regions["part"][:, ::PATCH, ::PATCH].flatten(1) > 0
    for number, colour in enumerate(COLOURS):
        mine = corpus.labels == number
        looks = run[site][mine, known.traits[colour], prompts.patches :, 1 : prompts.patches]
        there = (looks * inside[mine][:, None]).sum(-1).mean(0)
        assert there[number] > 0.5
        assert there[[k for k in range(3) if k != number]].max() < 0.3


def test_prompts_begin_among_ordinary_tokens_where_a_register_is_far_out(net):
    corpus = glances(24, 5)
    begun = learn_prompts(net, corpus, ClassPrompts(steps=1, rate=1e-12))
    site = f"blocks.{LAST}.resid_pre"
    norms = net.run(encoded(net, corpus.values), keep=site)[site].norm(dim=-1)
    assert norms.max() > 5 * norms.median()
    assert begun.tokens[LAST].norm(dim=-1).max() < 1.5 * norms.median()


def test_blurring_is_equal_attention_of_the_prompt(net, prompts):
    corpus = glances(6, 4)
    where = ow.Where((prompts.position(1),), rows=(2,))
    edits = [*prompts.edits(), ow.Set(f"blocks.{LAST}.attn.scores[0]", where, value=0.0)]
    site = f"blocks.{LAST}.attn.pattern"
    pattern = net.run(encoded(net, corpus.values), keep=site, edits=edits)[site]
    width = prompts.patches + prompts.classes
    assert torch.allclose(pattern[2, 0, prompts.position(1)], torch.full((width,), 1 / width))
    assert not torch.allclose(pattern[2, 0, prompts.position(0)], torch.full((width,), 1 / width))


def test_the_trait_is_found_where_it_was_planted(known, corpus, shown):
    inside = corpus.regions["part"][:, ::PATCH, ::PATCH].flatten(1).numpy() > 0
    heads = [known.traits[COLOURS[label]] for label in corpus.labels.tolist()]
    maps = shown.table["attention"].values[np.arange(60), heads].reshape(60, -1)
    assert inside[np.arange(60), maps.argmax(1)].mean() > 0.9


def test_its_head_and_its_patches_carry_the_class(shown):
    assert [finding.verdict for finding in shown.findings] == ["supported", "supported"]


def test_blurring_all_prompts_at_once_is_blurring_each_alone(net, prompts, corpus):
    keep, images = prompts.readout, encoded(net, corpus.values[:4])

    def logits(labels):
        where = ow.Where(tuple(prompts.position(label) for label in labels))
        edits = [*prompts.edits(), ow.Set(f"blocks.{LAST}.attn.scores[2]", where, value=0.0)]
        return prompts.logits(net.run(images, keep=keep, edits=edits))

    together = logits(range(3))
    for label in range(3):
        assert torch.allclose(logits([label])[:, label], together[:, label], atol=1e-5)


def test_attention_lies_within_the_part_that_is_the_class(shown):
    assert (np.diag(shown.table["lift"].values) > 3).all()


def test_pictures_of_one_class_are_refused(net):
    corpus = glances(12, 4)
    same = PictureArray(corpus.values, labels=torch.zeros(12, dtype=torch.long))
    with pytest.raises(BadInput, match="two classes"):
        learn_prompts(net, same, FEW)


def test_one_image_of_each_class_is_refused(net, prompts):
    corpus = glances(3, 4)
    with pytest.raises(BadInput, match="two images"):
        traits(net, prompts, corpus)


def test_a_network_without_patch_tokens_is_refused():
    net = ow.open(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(3)).eval())
    with pytest.raises(BadInput, match="vision transformer"):
        learn_prompts(net, glances(12, 4), FEW)


@pytest.mark.parametrize(
    ("knobs", "cls"), [({"steps": 0}, ClassPrompts), ({"rate": 0.0}, ClassPrompts), ({"share": 1.0}, Traits)]
)
def test_knobs_out_of_range_are_refused(knobs, cls):
    with pytest.raises(BadInput, match="expected"):
        cls(**knobs)
