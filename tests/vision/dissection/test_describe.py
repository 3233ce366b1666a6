# pyright: reportIndexIssue=false, reportOptionalMemberAccess=false
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import openwork as ow
from openwork.errors import BadInput, UnknownName
from openwork.network import Network
from openwork.pictures import ImageFormat
from openwork.results.result import Result
from openwork.vision.dissection.describe import Description, MaskBank, TextBank, describe, paired_bank
from openwork.worlds.picture_array import PictureArray

NAMES = ("red", "green", "blue", "grey")
LEVELS = torch.tensor([[200, 0, 0], [0, 200, 0], [0, 0, 200], [90, 90, 90]])


def pictures(n: int, seed: int) -> PictureArray:
    """Grids of four patches, each of a colour or left black."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 5, (n, 2, 2))
    mask = torch.tensor(kinds.repeat(4, 1).repeat(4, 2))
    colours = torch.cat((torch.zeros(1, 3, dtype=torch.long), LEVELS))
    pixels = colours[mask].permute(0, 3, 1, 2).byte()
    return PictureArray(pixels, f"patches {seed}", {"colour": NAMES}, {"colour": mask})


def network() -> Network:
    """Channels: red, green, blue, and one constant."""
    conv = nn.Conv2d(3, 4, 1)
    conv.weight.data = torch.cat((1.5 * torch.eye(3) - 0.5, torch.zeros(1, 3)))[:, :, None, None]
    conv.bias.data = torch.tensor([0.0, 0, 0, 1])
    net = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    return ow.open(net, example={"input": torch.rand(2, 3, 8, 8)}, images=ImageFormat(), name="colours")


@pytest.fixture(scope="module")
def result() -> Result:
    find = pictures(120, 0)
    return describe(network(), "module:1.out", find, MaskBank(find), held_out=pictures(80, 1))


def test_units_are_described_by_what_they_respond_to(result: Result):
    assert result.table.best_word.values[:3].tolist() == ["colour red", "colour green", "colour blue"]
    assert (result.table.correlation.values[:3] > 0.6).all()
    assert result.table.again.values[:3].all()


def test_shuffled_images_do_not_describe(result: Result):
    assert abs(float(result.table.shuffled_correlation.mean())) < 0.05
    assert result.table.attrs["agreement"] > result.table.attrs["shuffled_agreement"] + 0.3
    best = result.findings[0]
    assert best.control is not None
    assert best.control.p_value <= 0.01
    assert best.evidence.value == "observed"


def test_a_constant_unit_correlates_with_nothing(result: Result):
    assert float(result.table.correlation[3]) == 0


def test_a_pair_of_encoders_is_a_bank():
    def encode(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float().mean((2, 3)) + 1

    bank = TextBank(("red things", "green things", "blue things"), torch.eye(3), encode, "mean colour")
    found = describe(network(), "module:1.out[0,2]", pictures(80, 0), bank, Description("cos-cubed", claims=1))
    assert found.table.best_word.values.tolist() == ["red things", "blue things"]
    assert found.table.unit.values.tolist() == ["module:1.out[0]", "module:1.out[2]"]


def test_a_cache_is_read_only_for_the_same_configuration(tmp_path: Path):
    calls = []

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        return pixels.float().mean((2, 3)) + 1

    words = ("red", "green", "blue")
    bank, find = TextBank(words, torch.eye(3), encode, "one"), pictures(60, 0)
    method = Description(claims=0)
    first = describe(network(), "module:1.out", find, bank, method, cache=tmp_path)
    ran = len(calls)
    again = describe(network(), "module:1.out", find, bank, method, cache=tmp_path)
    assert len(calls) == ran
    assert again.table.equals(first.table)
    describe(network(), "module:1.out", find, TextBank(words, torch.eye(3), encode, "two"), method, cache=tmp_path)
    assert len(calls) > ran
    files = len(list(tmp_path.iterdir()))
    net = network()
    net.root[0].bias.data += 1
    changed = describe(net, "module:1.out", find, bank, method, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == files + 2
    assert not changed.table.equals(first.table)


def test_a_network_that_embeds_texts_and_images_is_a_bank():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.main_input_name = nn.Embedding(4, 3), "pixel_values"
            self.words.weight.data = torch.cat((torch.zeros(1, 3), torch.eye(3)))

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return pixel_values.mean((2, 3))

        def get_text_features(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.words(input_ids).sum(1)

        def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return self(pixel_values)

    class Tokens:
        def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
            return {"input_ids": self.encode(text)}

        def encode(self, text: str, **_: object) -> list[int]:
            return [["", "red", "green", "blue"].index(text)]

    net = ow.open(Pair().eval(), example={"pixel_values": torch.rand(2, 3, 8, 8)}, images=ImageFormat())
    net.tokenizer = net.preparer.tokenizer = Tokens()
    bank = paired_bank(net, ["red", "green", "blue"])
    found = describe(network(), "module:1.out[0-2]", pictures(60, 0), bank, Description("cos-cubed", claims=0))
    assert found.table.best_word.values.tolist() == ["red", "green", "blue"]


def test_a_network_of_images_alone_is_no_bank():
    with pytest.raises(BadInput, match="TextBank"):
        paired_bank(network(), ["a", "b"])


def test_a_bank_of_other_pictures_is_an_error():
    bare = PictureArray(pictures(20, 0).values, "bare")
    with pytest.raises(BadInput, match="masks of the bank"):
        describe(network(), "module:1.out", bare, MaskBank(pictures(4, 0)))
    with pytest.raises(BadInput, match="two concepts"):
        MaskBank(bare)


def test_knobs_and_words_that_do_not_fit_are_an_error():
    with pytest.raises(UnknownName, match="soft-wpmi"):
        Description("softwpmi")
    with pytest.raises(BadInput, match="pool"):
        Description(pool="median")
    with pytest.raises(BadInput, match="embedding each"):
        TextBank(("a", "b"), torch.eye(3), lambda x: x, "bad")


def test_a_network_of_text_is_an_error():
    find = pictures(20, 0)
    with pytest.raises(BadInput, match="images"):
        describe(ow.open("py-attn2"), "blocks.0.resid_post", find, MaskBank(find))


def test_a_site_without_places_is_described_too():
    found = describe(
        network(), "logits", pictures(60, 0), MaskBank(pictures(60, 0)), Description("cos-cubed", claims=0)
    )
    assert found.table.unit.values.tolist() == ["logits[0]", "logits[1]"]
