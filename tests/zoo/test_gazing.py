# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
"""The transformer that is wired by hand does what is said of it."""

import pytest
import torch

import openwork as ow
from openwork.vision.passes import encoded
from openwork.zoo.gazing import BLOCKS, COLOURS, FORMAT, HEADS, PATCH, RIM, gazing, glances, vacant


@pytest.fixture(scope="module", params=[0, 1, 2])
def made(request):
    known = gazing(request.param)
    return known, ow.open(known.module, name="gaze", images=FORMAT)


@pytest.fixture(scope="module")
def pictures():
    return glances(90, 5)


@pytest.fixture(scope="module")
def run(made, pictures):
    keep = ["blocks.*.attn.pattern", "blocks.*.resid_post"]
    return made[1].run(encoded(made[1], pictures.values), keep=keep)


def inside(pictures):
    return pictures.regions["part"][:, ::PATCH, ::PATCH].flatten(1)


def test_it_names_the_class(run, pictures):
    assert (run.logits.argmax(-1) == pictures.labels).float().mean() > 0.95


def test_the_class_token_looks_at_parts_by_the_heads_that_follow_them_and_no_others(made, run, pictures):
    known, _ = made
    for number, colour in enumerate(COLOURS):
        shows = pictures.labels == number
        there = inside(pictures)[shows] == number + 1
        for block in range(BLOCKS):
            looks = run[f"blocks.{block}.attn.pattern"][shows][:, :, 0, 1:]
            mass = (looks * there[:, None]).sum(-1).mean(0)
            for head in range(HEADS):
                if (block, head) == known.follows[colour]:
                    assert mass[head] > 0.9
                else:  # two of nine patches in the middle
                    assert mass[head] < 0.4


def test_the_register_alone_has_an_outlying_norm_from_where_it_is_filled_on(made, run):
    known, _ = made
    for block in range(BLOCKS):
        norms = run[f"blocks.{block}.resid_post"].norm(dim=-1)[:, 1:]
        others = norms[:, [i for i in range(25) if i != known.register]]
        assert known.register in RIM
        assert (norms[:, known.register].min() > 3 * others.max()) == (block >= known.filled)


def test_silent_heads_change_nothing(made, run, pictures):
    known, net = made
    edits = [ow.Set(f"blocks.{block}.attn.z[{head}]", value=7.0) for block, head in known.silent]
    assert len(edits) == BLOCKS
    assert torch.equal(net.run(encoded(net, pictures.values), edits=edits).logits, run.logits)


def test_heads_that_follow_are_what_the_answer_needs(made, run, pictures):
    known, net = made
    edits = [ow.Set(f"blocks.{block}.attn.z[{head}]", value=0.0) for block, head in known.follows.values()]
    logits = net.run(encoded(net, pictures.values), edits=edits).logits
    assert (logits.argmax(-1) == pictures.labels).float().mean() < 0.6


def test_parts_lie_in_the_middle_two_patches_each(pictures):
    parts = inside(pictures)
    assert not parts[:, list(RIM)].any()
    assert ((parts > 0).sum(1) == 2).all()
    assert (parts.amax(1) == pictures.labels + 1).all()


def test_bare_pictures_show_no_part():
    shown = inside(glances(200, 1, 0.25)).any(1).float().mean()
    assert 0.6 < shown < 0.9


def test_seeds_decide_everything():
    assert torch.equal(glances(12, 3).values, glances(12, 3).values)
    one, other, again = (gazing(seed) for seed in (0, 3, 0))
    assert one.follows == again.follows
    assert one.follows != other.follows
    first, second = (dict(known.module.named_parameters()) for known in (one, again))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_random_weights_know_no_class(pictures):
    net = ow.open(vacant(0), name="vacant", images=FORMAT)
    right = (net.run(encoded(net, pictures.values)).logits.argmax(-1) == pictures.labels).float().mean()
    assert right < 0.6
