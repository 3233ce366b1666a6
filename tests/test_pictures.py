"""What a network wants of an image, and what comes that is none."""

import pytest
import torch

from openwork.errors import BadInput
from openwork.pictures import ImageFormat, Masked, Pictures
from openwork.worlds.picture_array import PictureArray

FORMAT = ImageFormat((6, 5), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "BGR")
PIXELS = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))


def test_each_channel_is_normalised_and_put_in_order():
    values = FORMAT.encode(PIXELS)
    for place, channel in enumerate((2, 1, 0)):
        wanted = (PIXELS[:, channel] - FORMAT.mean[channel]) / FORMAT.sd[channel]
        assert torch.allclose(values[:, place], wanted)


def test_decoding_undoes_encoding():
    assert torch.allclose(FORMAT.decode(FORMAT.encode(PIXELS)), PIXELS, atol=1e-6)


def test_gradients_pass_the_door():
    pixels = PIXELS.clone().requires_grad_()
    FORMAT.encode(pixels).sum().backward()
    assert pixels.grad is not None
    assert torch.allclose(pixels.grad[0, :, 0, 0], 1 / torch.tensor(FORMAT.sd))


def test_a_format_survives_json():
    assert ImageFormat.from_json(FORMAT.to_json()) == FORMAT


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (PIXELS.movedim(1, -1), "last axis"),
        (PIXELS * 255, "Divide bytes by 255"),
        (PIXELS - 0.5, r"in \[0, 1\]"),
        (torch.full((1, 3, 6, 5), torch.nan), r"in \[0, 1\]"),
        (torch.rand(1, 3, 8, 8), "6 x 5 pixels"),
    ],
)
def test_what_is_no_such_image_is_refused(pixels, said):
    with pytest.raises(BadInput, match=said):
        FORMAT.encode(pixels)


@pytest.mark.parametrize(
    "record", [{}, {"size": None, "mean": [0.5], "sd": [0.0], "order": "RGB"}, {"size": 3, "mean": 1, "sd": 1}]
)
def test_a_damaged_record_is_refused(record):
    with pytest.raises(BadInput, match="expected"):
        ImageFormat.from_json(record)


def corpus(**changes):
    given = {
        "values": (PIXELS * 255).byte(),
        "concepts": {"part": ("wheel", "door")},
        "regions": {"part": torch.zeros(2, 6, 5, dtype=torch.long)},
        "labels": torch.tensor([0, 1]),
        "class_names": ("car", "house"),
    }
    return PictureArray(**{**given, **changes})


def test_an_array_is_a_corpus_with_masks():
    assert isinstance(corpus(), Masked)
    assert isinstance(corpus(), Pictures)
    assert torch.equal(corpus().pixels([1]), (PIXELS[1:] * 255).byte())
    assert corpus().classes([1, 0]).tolist() == [1, 0]


def test_the_digest_changes_with_pixels_masks_and_labels():
    other_mask = {"part": torch.ones(2, 6, 5, dtype=torch.long)}
    made = [corpus(), corpus(values=(PIXELS * 254).byte()), corpus(regions=other_mask), corpus(labels=None)]
    assert len({c.digest for c in made}) == 4
    assert corpus().digest == corpus().digest


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"values": torch.zeros(0, 3, 6, 5, dtype=torch.uint8)}, "at least one image"),
        ({"regions": {}}, "expected masks for"),
        ({"regions": {"part": torch.zeros(2, 3, 3, dtype=torch.long)}}, "of shape"),
        ({"regions": {"part": torch.full((2, 6, 5), 3)}}, "ids of part"),
        ({"labels": torch.tensor([0])}, "2 labels"),
    ],
)
def test_a_corpus_that_does_not_fit_together_is_refused(changes, said):
    with pytest.raises(BadInput, match=said):
        corpus(**changes)


def test_classes_of_an_unlabelled_corpus_are_refused():
    with pytest.raises(BadInput, match="no labels"):
        corpus(labels=None).classes([0])
