# pyright: reportArgumentType=false
"""A folder of photographs: what is read, how, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openwork.errors import BadInput, CorruptFile
from openwork.pictures import Masked, Pictures
from openwork.worlds import photographs
from openwork.worlds.photographs import Photographs


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def gradient(height: int = 24, width: int = 32) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), np.full_like(x, 40)], -1).astype(np.uint8)


def test_images_at_any_depth_come_sorted_and_others_are_counted(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.png", "a/c.jpg"):
        save(tmp_path / name, gradient())
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._b.png").write_bytes(b"a shadow of another system")
    found = Photographs(tmp_path, (8, 8))
    assert found.paths == ("a/c.jpg", "a/z.png", "b.png")
    assert (len(found), found.ignored) == (3, 2)
    assert isinstance(found, Pictures)
    assert isinstance(found, Masked)


def test_an_image_of_the_size_is_what_was_saved(tmp_path: Path) -> None:
    save(tmp_path / "a.png", gradient())
    pixels = Photographs(tmp_path, (24, 32)).pixels([0])
    assert torch.equal(pixels[0].permute(1, 2, 0), torch.from_numpy(gradient()))


def test_the_centre_is_cut_out_and_averaged(tmp_path: Path) -> None:
    array = np.zeros((8, 24, 3), np.uint8)
    array[:, 8:16:2] = 255  # the middle third has stripes; the rest is black
    save(tmp_path / "a.png", array)
    pixels = Photographs(tmp_path, (4, 4)).pixels([0]).float()
    assert 100 < float(pixels.mean()) < 155
    assert float(pixels.std()) < 60  # averaged, not picked


def test_padding_keeps_the_whole_image_and_enlarges_nothing(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.full((4, 8, 3), 200, np.uint8))
    pixels = Photographs(tmp_path, (16, 16), fit="pad").pixels([0])[0]
    assert bool((pixels[:, 6:10, 4:12] == 200).all())
    assert int((pixels > 0).sum()) == 3 * 4 * 8


def test_images_smaller_than_the_size_are_named(tmp_path: Path) -> None:
    save(tmp_path / "small.png", gradient(8, 8))
    save(tmp_path / "large.png", gradient())
    with pytest.raises(BadInput, match=r"smaller are small\.png \(8 x 8\)"):
        Photographs(tmp_path, (16, 16))


def test_a_camera_held_upright_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    save(tmp_path / "a.png", gradient(), exif=exif)
    pixels = Photographs(tmp_path, (32, 24)).pixels([0])[0]
    assert torch.equal(pixels.permute(1, 2, 0), torch.from_numpy(np.rot90(gradient(), -1).copy()))


@pytest.mark.parametrize(
    ("array", "want"),
    [
        (np.full((8, 8), 77, np.uint8), (77, 77, 77)),
        (np.full((8, 8), 77 * 256 + 9, np.uint16), (77, 77, 77)),
        (np.dstack([np.full((8, 8, 3), 10, np.uint8), np.zeros((8, 8), np.uint8)]), (255, 255, 255)),
        (np.dstack([np.full((8, 8, 3), 10, np.uint8), np.full((8, 8), 255, np.uint8)]), (10, 10, 10)),
    ],
)
def test_grey_deep_and_transparent_images_become_rgb(
    tmp_path: Path, array: np.ndarray, want: tuple[int, int, int]
) -> None:
    save(tmp_path / "a.png", array)
    pixels = Photographs(tmp_path, (8, 8)).pixels([0])
    assert pixels[0, :, 3, 3].tolist() == list(want)


def test_a_palette_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8, 3), (250, 0, 0), np.uint8)).quantize(4).save(tmp_path / "a.png")
    assert Photographs(tmp_path, (8, 8)).pixels([0])[0, :, 0, 0].tolist() == [250, 0, 0]


def test_all_broken_files_are_named_at_once(tmp_path: Path) -> None:
    save(tmp_path / "whole.jpg", gradient())
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "words.png").write_text("not an image")
    with pytest.raises(CorruptFile, match=r"2 files.*cut\.jpg.*words\.png"):
        Photographs(tmp_path, (8, 8))


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "LARGEST", 100)
    save(tmp_path / "bomb.png", gradient())
    with pytest.raises(CorruptFile, match=r"bomb\.png \(claims 32 x 24 pixels"):
        Photographs(tmp_path, (8, 8))


def test_an_empty_folder_and_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="got none"):
        Photographs(tmp_path, (8, 8))
    with pytest.raises(BadInput, match="not there"):
        Photographs(tmp_path / "nowhere", (8, 8))
    with pytest.raises(BadInput, match="crop or pad"):
        Photographs(tmp_path, (8, 8), fit="stretch")


def test_links_that_lead_out_are_left_alone(tmp_path: Path) -> None:
    outside = save(tmp_path / "outside" / "secret.png", gradient())
    inside = save(tmp_path / "inside" / "a.png", gradient())
    (tmp_path / "inside" / "link.png").symlink_to(outside)
    (tmp_path / "inside" / "folder").symlink_to(outside.parent)
    (tmp_path / "inside" / "b.png").symlink_to(inside)
    assert Photographs(tmp_path / "inside", (8, 8)).paths == ("a.png", "b.png")


def test_the_digest_changes_with_a_pixel_and_with_the_fit(tmp_path: Path) -> None:
    save(tmp_path / "a.png", gradient())
    first = Photographs(tmp_path, (8, 8)).digest
    assert Photographs(tmp_path, (8, 8)).digest == first
    assert Photographs(tmp_path, (8, 8), fit="pad").digest != first
    changed = gradient()
    changed[0, 0] = 9
    save(tmp_path / "a.png", changed)
    assert Photographs(tmp_path, (8, 8)).digest != first


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.png", "dog/x/3.png"):
        save(tmp_path / name, gradient())
    found = Photographs(tmp_path, (8, 8))
    assert found.class_names == ("cat", "dog")
    assert found.classes([2, 0]).tolist() == [1, 0]
    save(tmp_path / "alone.png", gradient())
    with pytest.raises(BadInput, match="sub-folder"):
        Photographs(tmp_path, (8, 8)).classes([0])


def labelled(tmp_path: Path, ids: np.ndarray) -> Photographs:
    save(tmp_path / "images" / "a.jpg", gradient())
    save(tmp_path / "masks" / "object" / "a.png", ids)
    (tmp_path / "masks" / "concepts.json").write_text(json.dumps({"object": ["sky", "sea"]}))
    return Photographs(tmp_path / "images", (12, 12), masks=tmp_path / "masks")


def test_masks_are_cut_like_their_images(tmp_path: Path) -> None:
    ids = np.zeros((24, 32), np.uint8)
    ids[:, 16:] = 2
    found = labelled(tmp_path, ids)
    mask = found.masks([0])["object"][0]
    assert found.concepts == {"object": ("sky", "sea")}
    assert bool((mask[:, :6] == 0).all())
    assert bool((mask[:, 6:] == 2).all())


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="from 0 to 2"):
        labelled(tmp_path, np.full((24, 32), 3, np.uint8)).masks([0])
    with pytest.raises(BadInput, match="32 x 24"):
        labelled(tmp_path, np.zeros((8, 8), np.uint8)).masks([0])
    (tmp_path / "masks" / "object" / "a.png").unlink()
    with pytest.raises(BadInput, match="there is no"):
        Photographs(tmp_path / "images", (12, 12), masks=tmp_path / "masks")
    (tmp_path / "masks" / "concepts.json").write_text("[")
    with pytest.raises(CorruptFile, match="concepts"):
        Photographs(tmp_path / "images", (12, 12), masks=tmp_path / "masks")


def test_what_was_read_is_not_read_again_and_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png", gradient())
    corpus = Photographs(tmp_path, (24, 32))
    first = corpus.pixels([0])
    first[:] = 0
    monkeypatch.setattr(Image, "open", lambda *args, **more: pytest.fail("read again"))
    assert torch.equal(corpus.pixels([0])[0].permute(1, 2, 0), torch.from_numpy(gradient()))
