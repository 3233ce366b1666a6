# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false
"""Feature visualisation: a plain loop makes the same picture, planted preferences show, nothing is left behind."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import openwork as ow
from openwork.direction import Direction
from openwork.errors import BadInput, UnknownName
from openwork.pictures import ImageFormat
from openwork.results.result import Result
from openwork.vision.synthesis.accentuate import Accentuation
from openwork.vision.synthesis.ascent import Watching, bytes_a_row
from openwork.vision.synthesis.caricature import Caricature, Inversion
from openwork.vision.synthesis.colour import IMAGENET, PLAIN
from openwork.vision.synthesis.dream import DeepDream
from openwork.vision.synthesis.maco import Maco
from openwork.vision.synthesis.making import Ascent
from openwork.vision.synthesis.objectives import latent, with_centre
from openwork.vision.synthesis.parameterisation import Fourier, Pixels
from openwork.vision.synthesis.robustness import Crops, Robustness, Still
from openwork.vision.synthesis.spectrum import Spectrum
from openwork.vision.synthesis.terms import Diversity
from openwork.vision.synthesis.visualise import visualise
from openwork.vision.units import Unit
from openwork.worlds.picture_array import PictureArray

ANGLES = (0.0, 45.0, 90.0, 135.0)
GENTLE = Robustness(jitter=2, scales=(1.0,), angles=(0,), jitter_after=0)
FAST = {"steps": 24, "tests": 0, "views": GENTLE}


class Bars(nn.Module):
    """Units that prefer one orientation of light and dark each, one that prefers red, one that is always silent."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 9, padding=4)
        self.act = nn.ReLU()
        self.deep = nn.Conv2d(6, 6, 3, padding=1)
        y, x = torch.meshgrid(torch.arange(-4.0, 5), torch.arange(-4.0, 5), indexing="ij")
        weight = torch.zeros(6, 3, 9, 9)
        for unit, angle in enumerate(ANGLES):
            along = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
            weight[unit] = torch.cos(along * 2 * math.pi / 5) * torch.exp(-(x**2 + y**2) / 8)
        weight[4, 0, 4, 4], weight[4, 1:, 4, 4] = 1.0, -0.5
        weight = weight - weight.mean((2, 3), keepdim=True) * (torch.arange(6) < 4)[:, None, None, None]
        self.conv.weight.data, self.conv.bias.data = weight, torch.tensor([0.0] * 5 + [-1.0])

    def forward(self, pixel_values):
        return self.deep(self.act(self.conv(pixel_values))).mean((2, 3))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    example = {"pixel_values": torch.zeros(2, 3, 24, 24)}
    return ow.open(Bars().eval(), images=ImageFormat((24, 24), (0.5,) * 3, (0.25,) * 3), example=example)


@pytest.fixture(scope="module")
def vit():
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4,
        num_labels=3,
    )  # fmt: skip
    images = ImageFormat((16, 16), (0.5,) * 3, (0.5,) * 3)
    return ow.open(ViTForImageClassification(config).eval(), images=images)


def hooks(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in module.modules())


def orientation(picture):
    """The direction, in degrees, along which a picture changes most: the first axis of its structure tensor."""
    grey = picture.mean(0)
    dy, dx = np.gradient(grey)
    return math.degrees(0.5 * math.atan2(2 * (dx * dy).mean(), (dx**2 - dy**2).mean())) % 180


def one_by_one(net, unit, seed, steps, views, rate=0.05):
    """One picture by a plain loop, written from Lucid's formulas: no batch, no warp in one call, Adam by hand."""
    height = width = 24
    draws = torch.Generator().manual_seed(seed)
    spectrum = 0.01 * torch.randn(3, height, width // 2 + 1, 2, generator=draws)
    drawn = torch.rand(steps, 7, generator=draws)
    f = np.sqrt(np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width)[None] ** 2)
    scale = torch.tensor(math.sqrt(height * width) / np.maximum(f, 1 / 24), dtype=torch.float32)
    svd = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
    svd = svd / svd.norm(dim=0).max()
    mean, square = torch.zeros_like(spectrum), torch.zeros_like(spectrum)

    def picture(numbers):
        made = torch.fft.irfft2(torch.complex(numbers[..., 0], numbers[..., 1]) * scale, s=(height, width)) / 4
        return torch.sigmoid((svd @ made.reshape(3, -1)).reshape(3, height, width))

    for step in range(steps):
        spectrum.requires_grad_()
        shown = picture(spectrum)
        reach = views.jitter // 2
        down, right = (int(drawn[step, i] * (2 * reach + 1)) - reach for i in (0, 1))
        padded = nn.functional.pad(shown, (reach,) * 4, value=0.5)
        shown = padded[:, reach + down : reach + down + height, reach + right : reach + right + width]
        value = net.root.act(net.root.conv((shown[None] - 0.5) / 0.25))[0, unit].mean()
        (grad,) = torch.autograd.grad(-value, spectrum)
        mean, square = 0.9 * mean + 0.1 * grad, 0.999 * square + 0.001 * grad**2
        corrected = (square / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
        spectrum = spectrum.detach() - rate * mean / (1 - 0.9 ** (step + 1)) / corrected
    return picture(spectrum)


def test_a_plain_loop_makes_the_same_picture(net):
    from openwork.vision.synthesis.visualise import planned

    method = Ascent(views=GENTLE, steps=12, tests=0, redirected=0)
    found = visualise(net, "module:act.out[0-3]", method).table
    seeds = [p.seed for p in planned(method.targets(net, "module:act.out[0-3]"), method)]
    for unit, seed in enumerate(seeds):
        plain = one_by_one(net, unit, seed, 12, GENTLE).detach().numpy()
        apart = np.abs(found.pixels.values[unit] - plain)
        assert apart.mean() < 5e-4
        assert apart.max() < 1e-2  # Adam's first steps have the size of its rate, however small the gradient


def test_a_picture_is_the_same_alone_and_among_others(net):
    method = Ascent(steps=16, tests=0)
    among = visualise(net, ["module:act.out[0-4]", "module:deep.out[1]"], method).table
    for unit in (2, 5):
        name = among.unit.values[unit]
        alone = visualise(net, str(name), method).table
        np.testing.assert_allclose(among.pixels.values[unit], alone.pixels.values[0], atol=2e-3)


def test_a_small_memory_makes_the_same_pictures_in_parts(net):
    whole = visualise(net, "module:act.out[0-3]", Ascent(**FAST)).table
    parts = visualise(net, "module:act.out[0-3]", Ascent(**FAST, memory=1)).table
    np.testing.assert_allclose(whole.pixels.values, parts.pixels.values, atol=2e-3)


@pytest.mark.parametrize("unit", range(4))
def test_the_picture_of_a_planted_orientation_has_it(net, unit):
    found = visualise(net, f"module:act.out[{unit}]", Ascent(**FAST)).table
    off = abs(orientation(found.pixels.values[0]) - ANGLES[unit])
    assert min(off, 180 - off) < 8


def test_the_picture_of_a_planted_colour_has_it(net):
    table = visualise(net, "module:act.out[4]", Ascent(**FAST | {"steps": 100}, colour=PLAIN)).table
    red, green, blue = table.pixels.values[0].mean((1, 2))
    assert red > 0.55
    assert max(green, blue) < 0.45


def test_a_planted_preference_is_claimed_and_supported(net):
    result = visualise(net, "module:act.out[0-3]", Ascent(**FAST | {"tests": 24}))
    assert [str(f.verdict) for f in result.findings] == ["supported"] * 4
    assert all(f.control.n >= 100 for f in result.findings)
    assert result.table.shown.shape == (4, 24)


def test_a_picture_of_noise_is_not_supported(net):
    result = visualise(net, "module:act.out[0-3]", Ascent(**FAST | {"tests": 24, "steps": 1, "rate": 1e-9}))
    assert "supported" not in [str(f.verdict) for f in result.findings]


def test_a_silent_unit_is_reported_and_its_picture_is_grey(net):
    result = visualise(net, "module:act.out[5]", Ascent(**FAST, redirected=0))
    assert not bool(result.table.alive.values[0])
    assert "module:act.out[5]" in result.remarks[0]
    assert np.unique(result.table.pixels.values).tolist() == [0.5]


def test_penalties_do_not_hide_that_a_unit_is_silent(net):
    from openwork.vision.synthesis.terms import TotalVariation

    result = visualise(net, "module:act.out[4,5]", Ascent(**FAST, also=-0.1 * TotalVariation()))
    assert result.table.alive.values.tolist() == [True, False]


def test_redirected_gradients_wake_a_silent_start():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 1)
            self.act = nn.ReLU()
            self.conv.weight.data[:] = 1.0
            self.conv.bias.data[:] = -1.7

        def forward(self, pixel_values):
            return self.act(self.conv(pixel_values)).mean((2, 3))

    late = ow.open(Late().eval(), images=ImageFormat((8, 8)), example={"pixel_values": torch.ones(2, 3, 8, 8)})
    still = {"steps": 40, "tests": 0, "views": Still()}
    without, with_it = (visualise(late, "module:act.out[0]", Ascent(**still, redirected=n)) for n in (0, 16))
    assert not without.table.alive.values[0]
    assert with_it.table.alive.values[0]
    assert with_it.table.activation.values[0] > 0.1


def test_nothing_is_left_on_the_network(net):
    before = {k: v.clone() for k, v in net.root.state_dict().items()}
    visualise(net, "module:conv.out[0]", Ascent(**FAST))
    assert hooks(net.root) == 0
    assert all(torch.equal(v, net.root.state_dict()[k]) for k, v in before.items())
    assert all(p.grad is None for p in net.root.parameters())


def test_nothing_is_left_on_the_network_after_an_exception(net):
    def fail(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        visualise(net, "module:conv.out[0]", Ascent(**FAST), tick=fail)
    assert hooks(net.root) == 0
    x = torch.tensor([[-1.0]], requires_grad=True)
    assert torch.autograd.grad(nn.functional.relu(x).sum(), x)[0].item() == 0


def test_only_the_part_that_is_needed_runs(net):
    ran = []
    handle = net.root.deep.register_forward_hook(lambda *_: ran.append(1))
    Watching(net, ["module:act.out"])(torch.rand(2, 3, 24, 24))
    handle.remove()
    assert not ran


def test_memory_is_counted_by_what_a_picture_holds(net):
    shallow, deep = bytes_a_row(net, ["module:conv.out"], 1), bytes_a_row(net, ["module:deep.out"], 1)
    assert 24 * 24 * 3 * 4 < shallow < deep
    assert bytes_a_row(net, ["module:conv.out"], 6) == 6 * shallow


def test_a_neuron_is_excited_at_its_place_alone(net):
    unit = with_centre(net, Unit("module:conv.out", channel=0))
    table = visualise(net, unit, Ascent(**FAST | {"views": Still()}, image=Pixels())).table
    assert unit.position == 12 * 24 + 12
    far = np.abs(table.gradient.values[0])
    assert far[7:18, 7:18].sum() > 0.95 * far.sum()


def test_a_direction_is_followed(net):
    vector = np.zeros(6)
    vector[1] = 1.0
    table = visualise(net, Direction("module:act.out", vector), Ascent(**FAST)).table
    assert abs(orientation(table.pixels.values[0]) - ANGLES[1]) < 10


def test_a_latent_of_a_dictionary_is_a_unit():
    class Two:
        reads = writes = "module:conv.out"
        directions = torch.eye(6)[:2]

    assert latent(Two(), 1).vector == (0.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    with pytest.raises(BadInput, match="a latent below 2"):
        latent(Two(), 2)


def test_variants_differ_and_diversity_makes_them_differ_more(net):
    def likeness(also):
        method = Ascent(steps=40, tests=0, views=GENTLE, variants=3, also=also)
        table = visualise(net, "module:deep.out[0]", method).table
        with torch.no_grad():
            maps = Watching(net, ["module:conv.out"])(torch.tensor(table.pixels.values))["module:conv.out"].flatten(2)
        grams = nn.functional.normalize(torch.einsum("rcp,rdp->rcd", maps, maps).flatten(1), dim=1)
        return float((grams @ grams.T).mean()), table.unit.values.tolist()

    plain, names = likeness(None)
    diverse, _ = likeness(20 * Diversity("module:conv.out"))
    assert diverse < plain
    assert names == [f"module:deep.out[0] ({i})" for i in (1, 2, 3)]


def test_alpha_is_learnt_and_returned(net):
    unit = with_centre(net, Unit("module:conv.out", channel=0))
    table = visualise(net, unit, Ascent(**FAST | {"steps": 60, "views": Still()}, alpha=True)).table
    alpha = table.alpha.values[0]
    assert alpha.shape == (24, 24)
    assert alpha[9:16, 9:16].mean() > alpha[:4].mean() + 0.1


@pytest.mark.parametrize("units", ["blocks.1.mlp.hidden[7]", "blocks.0.resid_post[5]", "logits[2]"])
def test_units_of_a_vision_transformer_rise(vit, units):
    table = visualise(vit, units, Ascent(**FAST)).table
    assert table.course.values[0, -1] > table.course.values[0, 0]
    assert table.pixels.shape == (1, 3, 16, 16)


def test_a_token_of_a_vision_transformer_is_a_unit(vit):
    cls, patch = (Unit("blocks.0.resid_post", channel=5, position=p) for p in (0, 6))
    table = visualise(vit, [cls, patch], Ascent(**FAST)).table
    assert bool((table.course.values[:, -1] > table.course.values[:, 0]).all())
    assert not np.allclose(table.pixels.values[0], table.pixels.values[1], atol=0.02)


def test_the_class_token_is_no_place_of_a_channel(vit):
    pixels = torch.rand(1, 3, 16, 16)
    method = Ascent(**FAST)
    (target,) = method.targets(vit, "blocks.0.resid_post[5]")
    from openwork.vision.synthesis.ascent import measured

    value = vit.run(vit.images.encode(pixels), keep="blocks.0.resid_post")["blocks.0.resid_post"]
    found = measured(vit, [target.own], [0], pixels)
    assert float(found[0]) == pytest.approx(float(value[0, 1:, 5].mean()), abs=1e-5)


def noise(size=24, count=12):
    draws = torch.Generator().manual_seed(1)
    return PictureArray(torch.randint(0, 256, (count, 3, size, size), generator=draws, dtype=torch.uint8), "noise")


def test_maco_raises_the_unit_and_keeps_its_size(net):
    method = Maco(Spectrum.of(noise()), Crops(count=2), steps=60, tests=0)
    table = visualise(net, "module:conv.out[0]", method).table
    assert table.pixels.shape == (1, 3, 48, 48)
    course = table.course.values[0]  # of random crops, so that single steps say little
    assert course[-10:].mean() > course[:10].mean()
    assert 0 <= table.gradient.values.min() <= table.gradient.values.max() == 1


def picture(seed=0):
    draws = torch.Generator().manual_seed(seed)
    return nn.functional.interpolate(torch.rand(1, 3, 6, 6, generator=draws), (24, 24), mode="bilinear")[0]


def test_accentuation_begins_at_the_picture_and_stays_near_it(net):
    start = picture()
    none = visualise(net, "module:conv.out[0]", Accentuation(start, steps=1, rate=1e-9, tests=0)).table
    np.testing.assert_allclose(none.pixels.values[0], start.numpy(), atol=2e-3)
    free, held = (
        visualise(net, "module:conv.out[0]", Accentuation(start, penalty=p, steps=30, tests=0)).table
        for p in (0.0, 300.0)
    )
    far, near = (float(((t.pixels.values[0] - start.numpy()) ** 2).mean()) for t in (free, held))
    assert free.course.values[0, -1] > free.course.values[0, 0]
    assert near < far


def test_a_dream_excites_a_whole_layer(net):
    table = visualise(net, "module:conv.out", DeepDream(picture(), tests=0)).table
    assert table.unit.values.tolist() == ["module:conv.out"]
    assert table.course.values[0, -1] > 1.5 * table.course.values[0, 0]


def test_a_dream_takes_octaves_where_images_may_have_any_size():
    torch.manual_seed(0)
    example = {"pixel_values": torch.zeros(2, 3, 24, 24)}
    free = ow.open(Bars().eval(), images=ImageFormat(None, (0.5,) * 3, (0.25,) * 3), example=example)
    table = visualise(free, "module:conv.out", DeepDream(picture(), octaves=2, steps=5, tests=0)).table
    assert table.pixels.shape == (1, 3, 24, 24)


def test_octaves_need_a_network_of_any_size(net):
    with pytest.raises(BadInput, match="octaves=1"):
        visualise(net, "module:conv.out", DeepDream(picture(), octaves=2, tests=0))


def test_inversion_finds_the_activations_again(net):
    table = visualise(net, "module:conv.out", Inversion(picture(), steps=150, tests=0)).table
    assert table.course.values[0, 0] < -0.5
    assert table.activation.values[0] > -0.1


def test_a_caricature_goes_with_the_activations(net):
    start = picture()
    table = visualise(net, "module:conv.out", Caricature(start, steps=60, tests=0)).table
    with torch.no_grad():
        found = Watching(net, ["module:conv.out"])(torch.stack([torch.tensor(table.pixels.values[0]), start]))
    a, b = found["module:conv.out"].flatten(1)
    assert float(nn.functional.cosine_similarity(a, b, dim=0)) > 0.8
    assert float(a.norm()) > 1.2 * float(b.norm())


def test_real_images_are_compared_with_on_the_held_out_half(net):
    result = visualise(net, "module:conv.out[0-1]", Ascent(**FAST), noise())
    assert "of the 6 held-out" not in result.remarks[-1]
    assert "2 of 2 pictures activate their unit more than the best of 6 held-out images of noise" in result.remarks[-1]
    assert bool((result.table.activation > result.table.best).all())


def test_a_result_comes_back_from_its_folder(net, tmp_path):
    result = visualise(net, "module:conv.out[0]", Ascent(**FAST))
    again = Result.load(result.save(tmp_path / "kept"))
    assert again.table.equals(result.table)


def test_a_grey_network_gets_grey_pictures():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2)).eval()
    grey = ow.open(model, images=ImageFormat((8, 8), (0.5,), (0.5,)), example={"input": torch.zeros(2, 1, 8, 8)})
    table = visualise(grey, "module:0.out[1]", Ascent(**FAST)).table
    assert table.pixels.shape == (1, 1, 8, 8)
    assert table.channel.values.tolist() == ["grey"]


def test_an_unknown_site_is_named(net):
    with pytest.raises(UnknownName, match=r"module:conv\.out"):
        visualise(net, "module:conf.out[0]", Ascent(**FAST))


def test_an_index_out_of_range_is_refused(net):
    with pytest.raises(BadInput, match="below 6"):
        visualise(net, "module:conv.out[6]", Ascent(**FAST))


def test_a_network_that_reads_text_is_refused():
    with pytest.raises(BadInput, match="reads images"):
        visualise(ow.open("py-attn2"), "logits[0]", Ascent(**FAST))


def test_a_network_of_unknown_format_is_refused():
    bare = ow.open(Bars().eval(), example={"pixel_values": torch.zeros(2, 3, 24, 24)})
    with pytest.raises(BadInput, match="images="):
        visualise(bare, "module:conv.out[0]", Ascent(**FAST))


def test_weights_that_are_not_finite_are_refused(net):
    broken = ow.open(Bars().eval(), images=net.images, example={"pixel_values": torch.zeros(2, 3, 24, 24)})
    broken.root.conv.weight.data[0, 0, 0, 0] = math.nan
    with pytest.raises(BadInput, match="finite activations"):
        visualise(broken, "module:conv.out[0]", Ascent(**FAST))


def test_a_picture_of_another_size_is_refused(net):
    with pytest.raises(BadInput, match=r"expected a picture \(3, 24, 24\)"):
        visualise(net, "module:conv.out[0]", Accentuation(torch.rand(3, 8, 8)))


def test_bytes_as_a_picture_are_refused(net):
    with pytest.raises(BadInput, match="Divide bytes by 255"):
        visualise(net, "module:conv.out[0]", Accentuation(200 * torch.rand(3, 24, 24)))


def test_a_spectrum_of_other_channels_is_refused():
    grey = PictureArray(torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8), "grey")
    example = {"pixel_values": torch.zeros(2, 3, 24, 24)}
    colourful = ow.open(Bars().eval(), images=ImageFormat((24, 24)), example=example)
    with pytest.raises(BadInput, match="spectrum of 3 channels"):
        visualise(colourful, "module:conv.out[0]", Maco(Spectrum.of(grey)))


def test_a_channel_is_nothing_to_match(net):
    with pytest.raises(BadInput, match="whole sites"):
        visualise(net, "module:conv.out[0]", Caricature(picture()))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rate": 0.0}, {"variants": 0}, {"tests": -1}])
def test_knobs_outside_their_range_are_refused(wrong):
    with pytest.raises(BadInput):
        Ascent(**wrong)


def test_the_default_is_that_of_lucid():
    method = Ascent()
    assert (method.steps, method.rate, method.redirected, method.colour) == (512, 0.05, 16, IMAGENET)
    assert method.image == Fourier(decay=1.0, sd=0.01)
