# pyright: reportCallIssue=false, reportIndexIssue=false, reportOptionalMemberAccess=false
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import openwork as ow
from openwork.direction import Direction
from openwork.errors import BadInput
from openwork.network import Network
from openwork.pictures import ImageFormat
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.vision.dissection.dissect import Dissection, dissect, rotation
from openwork.vision.dissection.overlap import enlarging
from openwork.worlds.picture_array import PictureArray

SIDE = 40
COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}


def scenes(n: int, seed: int, labelled: bool = True) -> PictureArray:
    """Dark noise with one small rectangle of each colour, bright or dim, 8 pixels of 1600: the share 0.005."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 16, (n, 3, SIDE, SIDE)).astype(np.uint8)
    colour = np.zeros((n, SIDE, SIDE), dtype=np.int64)
    for image in range(n):
        for number, rgb in enumerate(COLOURS.values()):
            top, left = rng.integers(SIDE // 3 - 2), rng.integers(SIDE - 4)
            top += number * (SIDE // 3)
            pixels[image, :, top : top + 2, left : left + 4] = rng.integers(50, 256) * np.array(rgb)[:, None, None]
            colour[image, top : top + 2, left : left + 4] = number + 1
    where = np.zeros_like(colour)
    where[:, :, : SIDE // 2], where[:, :, SIDE // 2 :] = 1, 2
    regions = {"colour": torch.tensor(colour), "side": torch.tensor(where)}
    concepts = {"colour": tuple(COLOURS), "side": ("left", "right")}
    if not labelled:
        return PictureArray(torch.tensor(pixels), "bare")
    return PictureArray(torch.tensor(pixels), f"scenes {seed}", concepts, regions)


def planted() -> Network:
    """Channels: red, green, blue (each that colour less the mean of the others), darkness of noise, and none."""
    conv = nn.Conv2d(3, 5, 1)
    weight = torch.zeros(5, 3)
    weight[:3] = 1.5 * torch.eye(3) - 0.5
    weight[3] = -torch.tensor([1.0, 0.83, 0.61])
    conv.weight.data = weight[:, :, None, None]
    conv.bias.data = torch.tensor([0.0, 0, 0, 40 / 255, 0])
    net = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)).eval()
    return ow.open(net, example={"input": torch.rand(2, 3, SIDE, SIDE)}, images=ImageFormat(), name="planted")


@pytest.fixture(scope="module")
def result() -> Result:
    return dissect(planted(), "module:1.out", scenes(60, 0), Dissection(rotations=20), held_out=scenes(40, 1))


def test_a_planted_detector_has_overlap_one_and_its_concept(result: Result):
    table = result.table
    assert table.best_concept.values[:3].tolist() == ["colour red", "colour green", "colour blue"]
    assert (table.iou.values[:3] > 0.98).all()  # a pixel of held-out noise may be above that of find images
    assert np.allclose(table.find_iou.values[:3], 1)
    assert table.detector.values.tolist() == [True, True, True, False, False]


def test_noise_lies_below_the_least_overlap_of_a_detector(result: Result):
    assert 0 < result.table.iou.values[3] < 0.04


def test_a_silent_unit_detects_nothing(result: Result):
    assert result.table.iou.values[4] == 0
    assert any("1 of 5 units of module:1.out never exceed" in remark for remark in result.remarks)


def test_the_share_above_a_threshold_is_the_one_asked_for(result: Result):
    assert np.allclose(result.table.share.values[:4], 0.005, atol=1e-4)
    assert (result.table.share.values <= 0.005).all()


def test_detectors_are_counted_by_category_beside_rotated_bases(result: Result):
    found = result.table.unique_detectors.sel(site="module:1.out")
    assert found.sel(category="colour") == 3
    assert found.sel(category="side") == 0
    rotated = result.table.rotated_unique.sel(site="module:1.out", category="colour")
    assert len(rotated) == 20
    assert float(rotated.mean()) <= 3


def test_rotated_units_that_see_one_colour_of_three_alone_do_as_well(result: Result):
    """A random direction is positive for just one of three colours in 3 of 8 cases: then it detects that one."""
    control = result.findings[0].control
    assert control is not None
    assert 0.2 < control.p_value < 0.6
    assert str(result.findings[0].verdict) == "rejected"


def test_a_claim_beats_the_masks_of_other_images(result: Result):
    for finding in result.findings[:3]:
        assert finding.estimate > 0.98
        assert finding.rival is not None
        assert finding.rival.difference.low > 0.9
        assert finding.split == "held-out"


def hues(n: int, seed: int) -> PictureArray:
    """A grey image with a rectangle of each corner of the colour cube, strong or weak."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(124, 132, (n, 3, SIDE, SIDE)).astype(float)
    mask = np.zeros((n, SIDE, SIDE), dtype=np.int64)
    for image in range(n):
        for corner in range(8):
            left, strength = rng.integers(SIDE - 4), rng.uniform(0.45, 1)
            colour = 127.5 + strength * 127.5 * CORNERS[corner]
            pixels[image, :, 5 * corner : 5 * corner + 2, left : left + 4] = colour[:, None, None]
            mask[image, 5 * corner : 5 * corner + 2, left : left + 4] = corner + 1
    names = {"hue": tuple("abcdefgh")}
    return PictureArray(torch.tensor(pixels.round(), dtype=torch.uint8), "hues", names, {"hue": torch.tensor(mask)})


CORNERS = np.array([[2 * (b >> k & 1) - 1 for k in range(3)] for b in range(8)])


def test_units_of_one_hue_each_overlap_more_than_rotated_ones():
    conv = nn.Conv2d(3, 8, 1)
    conv.weight.data = torch.tensor(CORNERS / 3, dtype=torch.float32)[:, :, None, None]
    conv.bias.data = torch.full((8,), -0.36)
    module = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)).eval()
    reads = ImageFormat(mean=(0.5,) * 3, sd=(0.5,) * 3)
    net = ow.open(module, example={"input": torch.rand(2, 3, SIDE, SIDE)}, images=reads, name="hues")
    found = dissect(net, "module:1.out", hues(40, 0), Dissection(claims=1), held_out=hues(30, 1))
    assert found.table.best_concept.values.tolist() == [f"hue {name}" for name in "abcdefgh"]
    assert (found.table.iou > 0.98).all()
    best = found.findings[0]
    assert best.control is not None
    assert best.control.p_value < 0.15
    assert best.control.mean < 0.7
    assert found.table.unique_detectors.values.tolist() == [[8.0]]


def test_what_was_only_looked_at_is_never_supported(result: Result):
    assert {f.evidence.value for f in result.findings} == {"observed"}
    assert {str(f.verdict) for f in result.findings} <= {"inconclusive", "rejected"}


def test_examples_are_cut_where_the_unit_fires(result: Result):
    table = result.table
    place = table.shown.values.tolist().index("module:1.out[0]")
    assert np.array_equal(table.lit.values[place], table.labelled.values[place])
    assert table.lit.values[place].sum((1, 2)).tolist() == [8] * 4
    reds = table.picture.values[place][table.lit.values[place]]
    assert (reds[:, 0] >= 50).all()
    assert (reds[:, 1:] == 0).all()


def test_a_result_is_saved_and_read_again(result: Result, tmp_path):
    again = Result.load(result.save(tmp_path))
    assert again.table.equals(result.table)


# -- the paper, slowly --


def slow_map(activation: np.ndarray, offset: float, stride: float, side: int) -> np.ndarray:
    """One map at the resolution of the masks, pixel by pixel."""
    places = len(activation)
    out = np.zeros((side, side))
    for y in range(side):
        for x in range(side):
            u, v = (min(max((p - offset) / stride, 0), places - 1) for p in (y, x))
            i, j = min(int(u), places - 2), min(int(v), places - 2)
            a, b = u - i, v - j
            out[y, x] = (
                (1 - a) * (1 - b) * activation[i, j] + (1 - a) * b * activation[i, j + 1]
                + a * (1 - b) * activation[i + 1, j] + a * b * activation[i + 1, j + 1]
            )  # fmt: skip
    return out


def slow_dissection(activations: np.ndarray, pictures: PictureArray, share: float, offset: float, stride: float):
    """Thresholds from all stored activations; then every pixel of every unit, image and concept."""
    n, units = activations.shape[:2]
    side = pictures.values.shape[-1]
    kept = math.floor(share * activations[:, 0].size)
    thresholds = [sorted(activations[:, u].ravel().tolist(), reverse=True)[kept] for u in range(units)]
    table = []
    for unit in range(units):
        row = []
        for category, names in pictures.concepts.items():
            for number in range(1, len(names) + 1):
                both = either = 0
                for image in range(n):
                    label = pictures.regions[category][image].numpy()
                    if not label.any():
                        continue
                    active = slow_map(activations[image, unit], offset, stride, side) > thresholds[unit]
                    both += (active & (label == number)).sum()
                    either += (active | (label == number)).sum()
                row.append(both / either if either else 0.0)
        table.append(row)
    return np.array(thresholds), np.array(table)


def test_thresholds_and_overlaps_are_those_of_the_paper():
    torch.manual_seed(3)
    module = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2)).eval()
    example = torch.rand(2, 3, 18, 18)
    net = ow.open(nn.Sequential(module, nn.Flatten(), nn.Linear(64, 2)).eval(), example={"input": example},
                  images=ImageFormat(mean=(0.4, 0.5, 0.6), sd=(0.2, 0.3, 0.2)))  # fmt: skip
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (10, 6, 6)).repeat(3, 1).repeat(3, 2)
    labels[3:6] = 0  # carry no label of this category
    other = rng.integers(1, 3, (10, 18, 18))
    pixels = torch.tensor(rng.integers(0, 256, (10, 3, 18, 18)), dtype=torch.uint8)
    pictures = PictureArray(
        pixels, "random", {"kind": ("a", "b", "c"), "other": ("x", "y")},
        {"kind": torch.tensor(labels), "other": torch.tensor(other)},
    )  # fmt: skip
    method = Dissection(share=0.1, rotations=0, claims=0)
    table = dissect(net, "module:0.2.out", pictures, method, held_out=pictures).table
    with torch.no_grad():
        assert net.images is not None
        activations = module(net.images.encode(pixels.float() / 255)).numpy()
    grid = net.grid("module:0.2.out")
    assert (grid.stride, grid.offset) == ((4.0, 4.0), (2.0, 2.0))
    thresholds, overlaps = slow_dissection(activations, pictures, 0.1, 2.0, 4.0)
    assert np.allclose(table.threshold, thresholds, atol=1e-6)
    assert np.allclose(table.concept_iou, overlaps, atol=1e-12)


def test_enlarging_reproduces_a_plane_between_the_outer_centres():
    net = planted()
    rows, columns = enlarging(net.grid("module:1.out"), (SIDE, SIDE))
    assert torch.equal(rows, torch.eye(SIDE))
    assert torch.equal(columns, torch.eye(SIDE))


def test_the_interval_is_that_of_a_bootstrap_over_images(result: Result):
    noisy = result.table.isel(unit=3)
    assert float(noisy.iou_low) < float(noisy.iou) < float(noisy.iou_high)
    again = dissect(
        planted(), "module:1.out[3]", scenes(60, 0), Dissection(rotations=0, claims=1), held_out=scenes(40, 1)
    )
    assert again.table.unit.values.tolist() == ["module:1.out[3]"]
    assert float(again.table.iou[0]) == pytest.approx(float(noisy.iou))


def test_a_direction_is_a_unit():
    vector = np.array([0.0, 2.0, 0.0, 0.0, 0.0])
    table = dissect(planted(), Direction("module:1.out", vector, "probe"), scenes(30, 0), Dissection(claims=0)).table
    assert table.unit.values.tolist() == ["module:1.out probe"]
    assert table.best_concept.values.tolist() == ["colour green"]
    assert float(table.iou[0]) > 0.98


def test_tokens_of_a_transformer_have_units_too():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(image_size=SIDE, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                       intermediate_size=24, num_labels=3)  # fmt: skip
    net = ow.open(ViTForImageClassification(config).eval(), images=ImageFormat(size=(SIDE, SIDE)))
    table = dissect(net, "blocks.0.mlp.hidden", scenes(24, 0), Dissection(rotations=2, claims=0)).table
    assert table.sizes["unit"] == 24
    assert np.isfinite(table.iou).all()
    assert table.iou.max() < 0.5


def test_three_images_are_said_to_be_few():
    found = dissect(planted(), "module:1.out", scenes(3, 0), Dissection(claims=1, rotations=1))
    assert any("smoke test" in remark for remark in found.remarks)
    assert any("1 held-out images are few" in remark for remark in found.remarks)
    assert not found.findings


def test_a_rotation_keeps_lengths_and_orientation():
    turn = rotation(7, np.random.default_rng(0))
    assert np.allclose(turn @ turn.T, np.eye(7))
    assert np.linalg.det(turn) == pytest.approx(1)


def test_pictures_without_masks_are_an_error():
    with pytest.raises(BadInput, match="these have none"):
        dissect(planted(), "module:1.out", scenes(4, 0, labelled=False))


def test_ids_without_a_name_are_an_error():
    pictures = scenes(6, 0)
    pictures.regions["colour"][2, 0, 0] = 9
    with pytest.raises(BadInput, match=r"from 0 \(unlabelled\) to 3"):
        dissect(planted(), "module:1.out", pictures, Dissection(rotations=0, claims=0))


def test_an_image_too_small_for_a_threshold_is_an_error():
    net = nn.Sequential(nn.Conv2d(3, 2, 8, stride=8), nn.Flatten(), nn.Linear(50, 2)).eval()
    opened = ow.open(net, example={"input": torch.rand(2, 3, SIDE, SIDE)}, images=ImageFormat())
    with pytest.raises(BadInput, match="at least 200 places"):
        dissect(opened, "module:0.out", scenes(4, 0), Dissection(claims=0, rotations=0))


def test_activations_that_are_not_finite_are_an_error():
    net = planted()
    pictures = scenes(6, 0)
    with torch.no_grad():
        net.root[0].weight[1] = float("inf")
    with pytest.raises(BadInput, match="finite activations"):
        dissect(net, "module:1.out", pictures, Dissection(claims=0, rotations=0))


def test_a_network_of_text_is_an_error():
    with pytest.raises(BadInput, match="images"):
        dissect(ow.open("py-attn2"), "blocks.0.resid_post", scenes(4, 0))


def test_other_concepts_on_held_out_images_are_an_error():
    other = PictureArray(scenes(4, 1).values, "other", {"kind": ("a",)}, {"kind": torch.ones(4, SIDE, SIDE).long()})
    with pytest.raises(BadInput, match="same categories"):
        dissect(planted(), "module:1.out", scenes(4, 0), held_out=other)


def test_knobs_out_of_range_are_an_error():
    with pytest.raises(BadInput, match="between 0 and 1"):
        Dissection(share=0.0)
    with pytest.raises(BadInput, match="no negative number"):
        Dissection(claims=-1)
    assert Standard().alpha == 0.05


def test_heads_of_a_transformer_have_channels_that_count_through():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(image_size=SIDE, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                       intermediate_size=24, num_labels=3)  # fmt: skip
    net = ow.open(ViTForImageClassification(config).eval(), images=ImageFormat(size=(SIDE, SIDE)))
    method = Dissection(rotations=0, claims=0)
    whole = dissect(net, "blocks.0.attn.z", scenes(16, 0), method).table
    second = dissect(net, "blocks.0.attn.z[1]", scenes(16, 0), method).table
    assert whole.sizes["unit"] == 16
    assert np.array_equal(second.threshold, whole.threshold[8:])
    assert second.unit.values[0] == "blocks.0.attn.z[1] 0"


def test_images_of_another_size_than_the_example_have_their_own_grid():
    pictures = scenes(16, 0)
    half = PictureArray(
        pictures.values[:, :, :20], "half", dict(pictures.concepts),
        {name: mask[:, :20] for name, mask in pictures.regions.items()},
    )  # fmt: skip
    table = dissect(planted(), "module:1.out", half, Dissection(share=0.01, rotations=0, claims=0)).table
    assert table.picture.shape[2:4] == (20, SIDE)
