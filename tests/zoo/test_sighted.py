"""Networks that see: what is said of their channels is true."""

import pytest
import torch

import openwork as ow
from openwork.pictures import ImageFormat
from openwork.zoo.sighted import ANGLES, COLOURS, FIRST, FIRST_SITE, SIDE, blind, patches, scrambled, sighted, spots


@pytest.fixture(scope="module", params=[0, 3])
def made(request):
    return sighted(request.param)


@pytest.fixture(scope="module")
def net(made):
    return ow.open(made.module, example={"images": torch.zeros(2, 3, SIDE, SIDE)}, images=ImageFormat((SIDE, SIDE)))


@pytest.fixture(scope="module")
def pictures():
    return spots(90, seed=5)


def accuracy(net, pictures, edits=()):
    logits = net.run(pictures.values.float() / 255, edits=edits).logits
    return [(logits.argmax(-1) == pictures.labels)[pictures.labels == c].float().mean().item() for c in range(3)]


def test_it_tells_every_picture(net, pictures):
    assert accuracy(net, pictures) == [1, 1, 1]


def test_a_detector_fires_most_where_its_colour_is(made, net, pictures):
    both = {made.shared, *(b for a, b in made.reads if a == made.shared)}
    for unit, colour in made.detectors.items():
        if unit in both:
            continue
        value = net.run(pictures.values.float() / 255, keep=unit)[unit][:, 0]
        inside = pictures.regions["thing"] == 1 + COLOURS.index(colour)
        assert value[inside].mean() > 10 * value[~inside].mean()


def shown(net, images, unit):
    return net.run(images.values.float() / 255, keep=unit)[unit][:, 0]


def test_the_shared_unit_fires_at_red_and_at_bars(made, net):
    images = patches(120, 1)
    value = shown(net, images, made.shared)
    red, bars = images.regions["colour"] == 1, images.regions["pattern"] == 1
    for here in (red & ~bars, bars & ~red):
        assert value[here].mean() > 5 * value[~red & ~bars].mean()


def test_the_shared_unit_is_read_with_both_signs(made):
    weight = made.module.second.weight.detach()[:, int(made.shared.split("[")[1][:-1]), 0, 0]
    assert {float(v.sign()) for v in weight[weight != 0]} == {1, -1}
    assert weight[int(made.union.split("[")[1][:-1])] < 0


def test_any_grating_alone_excites_the_union(made, net, pictures):
    for unit in made.gratings:
        alone = net.run(pictures.values.float() / 255, keep=made.union,
                        edits=[ow.Ablate(other) for other in made.gratings - {unit}])[made.union]  # fmt: skip
        none = net.run(pictures.values.float() / 255, keep=made.union, edits=[ow.Ablate(u) for u in made.gratings])
        assert alone.max() > 0.2
        assert not none[made.union].any()


def test_striped_units_fire_at_their_colour_with_bars_and_at_neither_alone(made, net):
    images = patches(120, 1)
    for unit, colour in made.striped.items():
        value = shown(net, images, unit)
        striped = images.regions["object"] == 1 + COLOURS.index(colour)
        assert value[striped].max() > 0.2
        assert value[~striped].max() < 0.05


def test_bars_on_a_square_go_with_its_colour(made):
    images = patches(120, 1)
    for number in range(len(COLOURS)):
        striped = images.regions["object"] == 1 + number
        assert (images.regions["texture"][striped] == 1 + number).all()
        assert (images.regions["colour"][striped] == 1 + number).all()


def test_a_class_is_lost_without_its_unit_and_not_without_others(made, net, pictures):
    for label, unit in made.critical.items():
        left = accuracy(net, pictures, [ow.Ablate(unit)])
        assert left[COLOURS.index(label)] < 0.5
        assert min(value for name, value in zip(COLOURS, left, strict=True) if name != label) == 1


def test_a_dead_unit_never_moves(made, net, pictures):
    for unit in made.dead:
        assert not net.run(pictures.values.float() / 255, keep=unit)[unit].any()


def test_gratings_are_quarter_turns_of_one_another(made):
    weights = made.module.first.weight.detach()
    kernels = [weights[int(unit.split("[")[1][:-1]), 0] for unit in made.gratings]
    straight = [k for k in kernels if any(torch.allclose(k, k.flip(0), atol=1e-6) for _ in (0,))]
    assert len(kernels) == len(ANGLES)
    assert any(torch.allclose(a.rot90(), b, atol=1e-5) for a in straight for b in straight if a is not b)


def test_the_site_is_where_the_units_are(net):
    assert net.parts(FIRST_SITE) == FIRST


def test_blind_networks_know_no_class(pictures):
    logits = blind(2)(pictures.values.float() / 255)
    assert (logits.argmax(-1) == pictures.labels).float().mean() < 0.7


def test_scrambled_pictures_keep_their_pixels_and_lose_their_masks(pictures):
    other = scrambled(pictures, 0)
    assert torch.equal(other.values, pictures.values)
    assert (other.labels != pictures.labels).float().mean() > 0.4
    assert other.digest != pictures.digest
