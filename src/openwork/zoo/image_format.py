"""What an embedded network wants of an image, in the file and the words of transformers."""

from __future__ import annotations

from pathlib import Path

from openwork.errors import CorruptFile
from openwork.pictures import ImageFormat
from openwork.store.files import read_json, write_json

FILE = "preprocessor_config.json"
BYTE = 1 / 255


def write_images(images: ImageFormat, folder: Path) -> None:
    """Write what a network wants of an image.

    Args:
        images: of one size, in the order RGB.
        folder: that ships.
    """
    assert images.size is not None and images.order == "RGB"  # noqa: PT018 - of our own recipes
    height, width = images.size
    content = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": False,
        "size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": BYTE,
        "do_normalize": True,
        "image_mean": list(images.mean),
        "image_std": list(images.sd),
    }
    write_json(folder / FILE, content)


def read_images(folder: Path) -> ImageFormat | None:
    """What a network of a folder wants of an image; None if it reads none.

    Raises:
        CorruptFile: if the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    content = read_json(path)
    try:
        size = (int(content["size"]["height"]), int(content["size"]["width"]))
        return ImageFormat(size, tuple(content["image_mean"]), tuple(content["image_std"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFile(f"cannot read {path}: {error}; build it again, or reinstall openwork") from error
