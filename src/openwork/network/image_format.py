"""The image format of a checkpoint, read from the files beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openwork.errors import BadInput, CorruptFile
from openwork.pictures import ImageFormat

if TYPE_CHECKING:
    from openwork.network.network import Network

PREPROCESSOR = "preprocessor_config.json"
CONFIG = "config.json"
BYTES = 1 / 255
"""How much bytes are scaled by where a checkpoint says nothing else: pixels in [0, 1]."""


def image_format(model: str | Path) -> ImageFormat | None:
    """What a checkpoint wants of an image, or None if it says nothing.

    A folder written by a recipe says it in ``config.json`` under ``images``; others in ``preprocessor_config.json``.

    Args:
        model: a folder, or a hub id (``id@revision``) whose files are on this machine or can be fetched.

    Raises:
        CorruptFile: if a file is damaged.
        BadInput: if it scales pixels in a way that no mean and sd can say.
    """
    config = _read(model, CONFIG)
    if isinstance(config.get("images"), Mapping):
        return ImageFormat.from_json(config["images"])
    record = _read(model, PREPROCESSOR)
    known = ("image_mean", "do_normalize", "do_rescale")
    return from_preprocessor(record) if any(key in record for key in known) else None


def from_preprocessor(record: Mapping[str, Any]) -> ImageFormat:
    """The format that an image processor's configuration describes.

    Args:
        record: with ``image_mean``, ``image_std``, ``do_normalize``, ``do_rescale``, ``rescale_factor``, ``size``,
            ``do_center_crop`` and ``crop_size`` as far as they are given.

    Raises:
        BadInput: if they do not fit together.
    """
    mean, sd = [0.0] * 3, [1.0] * 3
    if record.get("do_normalize", "image_mean" in record):
        mean, sd = _numbers(record, "image_mean"), _numbers(record, "image_std")
    factor = float(record.get("rescale_factor", BYTES)) if record.get("do_rescale", True) else 1.0
    scale = factor / BYTES  # of pixels in [0, 1]; 1 for nearly every checkpoint
    if scale <= 0:
        raise BadInput(f"expected a positive rescale_factor in {PREPROCESSOR}; got {factor}")
    cropped = record.get("do_center_crop", "crop_size" in record) and record.get("crop_size") is not None
    size = _size(record.get("crop_size") if cropped else record.get("size"))
    return ImageFormat(size, tuple(m / scale for m in mean), tuple(s / scale for s in sd))


def needs_images(net: Network) -> ImageFormat:
    """The format of a network that images are given to.

    Raises:
        BadInput: if it reads no images, or says nothing of what it wants of them.
    """
    if net.preparer.axes is None:
        raise BadInput(
            f"expected a network that reads images; {net.name} reads {net.preparer.main}. Try shapes-cnn, or a "
            "vision model by name or folder"
        )
    if net.images is None:
        raise BadInput(
            f"{net.name} does not say what it wants of an image; open it with images=openwork.ImageFormat(size, mean, "
            "sd), the size and normalisation that it was trained with"
        )
    return net.images


def _numbers(record: Mapping[str, Any], key: str) -> list[float]:
    try:
        value = record[key]
        return [float(v) for v in (value if isinstance(value, (list, tuple)) else [value])]
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"expected {key} as numbers in {PREPROCESSOR}; got {record.get(key)!r}") from error


def _size(value: Any) -> tuple[int, int] | None:
    """(height, width); None where only the shortest edge is said and nothing is cropped, for any length fits then."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return int(value[0]), int(value[1])
    if isinstance(value, Mapping) and {"height", "width"} <= set(value):
        return int(value["height"]), int(value["width"])
    return None


def _read(model: str | Path, name: str) -> dict[str, Any]:
    folder = Path(model).expanduser()
    path = folder / name if folder.is_dir() else _fetched(str(model), name)
    if path is None or not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptFile(f"{path} does not parse ({error}); fetch it again") from error
    return record if isinstance(record, dict) else {}


def _fetched(model: str, name: str) -> Path | None:
    """A file of a hub id, or None if it has no such file."""
    from transformers.utils.hub import cached_file

    source, _, revision = model.partition("@")
    options = {"revision": revision} if revision else {}
    try:
        found = cached_file(source, name, _raise_exceptions_for_missing_entries=False, **options)
    except (OSError, ValueError):
        return None
    return None if found is None else Path(found)
