# pyright: reportCallIssue=false, reportOptionalMemberAccess=false
"""What a network wants of an image: given, read from files, and what is refused at its door."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from openwork import network
from openwork.errors import BadInput, CorruptFile
from openwork.network.image_format import from_preprocessor, image_format, needs_images
from openwork.pictures import ImageFormat

from .seeing import images, see, vit

MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RECORD = {
    "image_mean": MEAN, "image_std": SD, "do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255,
    "size": {"height": 32, "width": 32},
}  # fmt: skip


def test_a_format_given_is_kept_and_its_size_is_the_dry_runs() -> None:
    net = network.open(see("cnn"), images=ImageFormat((24, 16), MEAN, SD))
    assert net.images == ImageFormat((24, 16), MEAN, SD)
    shown = net.example["pixels"]
    assert shown.shape[2:] == (24, 16)
    pixels = net.images.decode(shown)
    assert 0 <= float(pixels.min()) < 0.05
    assert 0.95 < float(pixels.max()) <= 1 + 1e-5


def test_it_is_read_beside_the_weights(tmp_path: Path) -> None:
    vit().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(RECORD))
    assert network.open(tmp_path).images == ImageFormat((32, 32), MEAN, SD)


def test_a_recipe_writes_it_into_the_configuration(tmp_path: Path) -> None:
    chosen = ImageFormat((16, 16), MEAN, SD, "BGR")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "x", "images": chosen.to_json()}))
    assert image_format(tmp_path) == chosen


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"do_normalize": False}, ImageFormat((32, 32))),
        ({"size": {"shortest_edge": 40}, "crop_size": 28}, ImageFormat((28, 28), MEAN, SD)),
        ({"size": {"shortest_edge": 40}}, ImageFormat(None, MEAN, SD)),
        ({"size": 30}, ImageFormat((30, 30), MEAN, SD)),
        ({"crop_size": 28, "do_center_crop": False}, ImageFormat((32, 32), MEAN, SD)),
    ],
)
def test_what_a_processor_says(change: dict[str, object], want: ImageFormat) -> None:
    assert from_preprocessor({**RECORD, **change}) == want


@pytest.mark.parametrize(("rescale", "factor"), [(True, 1 / 127.5), (False, 1.0), (True, 1 / 255)])
def test_a_format_gives_what_the_processor_gives(rescale: bool, factor: float) -> None:
    record = {**RECORD, "do_rescale": rescale, "rescale_factor": factor}
    pixels = torch.randint(0, 256, (1, 3, 32, 32)).float()
    scaled = pixels * factor if rescale else pixels
    want = (scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(SD)[:, None, None]
    torch.testing.assert_close(from_preprocessor(record).encode(pixels / 255), want, rtol=1e-4, atol=1e-4)


def test_files_that_say_nothing_or_are_damaged(tmp_path: Path) -> None:
    assert image_format(tmp_path) is None
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(CorruptFile, match="does not parse"):
        image_format(tmp_path)
    with pytest.raises(BadInput, match="image_mean"):
        from_preprocessor({**RECORD, "image_mean": "grey"})
    with pytest.raises(BadInput, match="positive rescale_factor"):
        from_preprocessor({**RECORD, "rescale_factor": -1})


def test_formats_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadInput, match="3 channels"):
        network.open(see("cnn"), images=ImageFormat((32, 32), (0.5,), (0.5,)), example={"pixels": images()})
    with pytest.raises(BadInput, match="ImageFormat"):
        network.open(see("cnn"), images="imagenet")


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.embed(input_ids))


def test_a_network_of_tokens_wants_no_images() -> None:
    with pytest.raises(BadInput, match="reads images only"):
        network.open(Words().eval(), images=ImageFormat((8, 8)))
    with pytest.raises(BadInput, match="expected a network that reads images"):
        needs_images(network.open(Words().eval()))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(2, 1, 32, 32), r"\(image, 3, y, x\)"),
        (torch.zeros(2, 32, 32, 3), "axis 3: permute"),
        (torch.zeros(3, 32, 32), r"\(image, 3, y, x\)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "Divide bytes by 255"),
        (torch.full((2, 3, 32, 32), float("nan")), "finite"),
        (torch.zeros(2, 3, 40, 40), "40"),
    ],
)
def test_what_is_no_batch_of_images_is_our_error(value: Tensor, said: str) -> None:
    net = network.open(see("vit"))
    with pytest.raises(BadInput, match=said):
        net.run(value)


def test_raw_values_go_in_as_they_are() -> None:
    net = network.open(see("cnn"), images=ImageFormat((32, 32), MEAN, SD))
    value = 7 * images()
    assert torch.equal(net.run(value).logits, net.root(value))
