"""A folder of the user's own photographs as a corpus of images."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from openwork.errors import BadInput, CorruptFile
from openwork.pictures import Rows
from openwork.store.hashing import hash_file, hash_json
from openwork.store.progress import Bar

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""What counts as an image; any other file is left alone and counted."""
LARGEST = 89_478_485
"""Pixels of one file, at most; a file that claims more is a mistake, or meant to fill the memory (Pillow's limit)."""
CONCEPTS = "concepts.json"
KEPT = 2**26
"""Bytes of images that are kept of those read last: methods read the same ones again and again."""


class Photographs:
    """The images below a folder, sorted by path, read when they are asked for.

    Each is turned upright by its EXIF orientation, made RGB (transparent parts over white), and brought to one size:
    nothing is ever enlarged. Where every image lies in a sub-folder, the first sub-folder is its class.

    Args:
        folder: with images at any depth; hidden files and links that lead out of it are left alone.
        size: (height, width) of what comes out, such as ``net.images.size``.
        fit: ``crop`` cuts the largest centred part of this shape and shrinks it; ``pad`` shrinks the whole image until
            it fits, and centres it on black.
        masks: a folder with ``concepts.json`` (category -> names of its concepts) and for every image an id map
            ``<category>/<path of the image>.png`` of its upright size, in which k stands for the k-th concept and 0
            for nothing.

    Raises:
        BadInput: for no folder, no images in it, images smaller than `size` (naming them), or masks that are missing
            or do not fit.
        CorruptFile: naming all files that are damaged, cut short, or no images at all.
    """

    def __init__(
        self,
        folder: str | Path,
        size: tuple[int, int],
        fit: str = "crop",
        masks: str | Path | None = None,
    ):
        self.folder, self.size, self.fit = Path(folder).expanduser(), size, fit
        self._masks = None if masks is None else Path(masks).expanduser()
        if not self.folder.is_dir():
            state = "a file" if self.folder.exists() else "not there"
            raise BadInput(f"expected a folder of images; {self.folder} is {state}")
        if fit not in ("crop", "pad"):
            raise BadInput(f"expected fit to be crop or pad; got {fit!r}")
        if len(size) != 2 or min(size) < 1:
            raise BadInput(f"expected a size as (height, width); got {size}")
        self.paths, self.ignored = _images_below(self.folder)
        """The images, relative to the folder, and how many other files lie there."""
        if not self.paths:
            raise BadInput(
                f"expected images ({', '.join(SUFFIXES)}) below {self.folder}; got none among {self.ignored} files"
            )
        first = {path.split("/")[0] for path in self.paths}
        self.class_names: tuple[str, ...] = tuple(sorted(first)) if all("/" in path for path in self.paths) else ()
        self._check()
        self.concepts: Mapping[str, tuple[str, ...]] = {} if self._masks is None else self._concepts(self._masks)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @cached_property
    def digest(self) -> str:
        """sha256 of all files, their paths, and how they are fitted."""
        files = [(path, hash_file(self._path(path))) for path in self.paths]
        if self._masks is not None:
            files += [(f"{c}/{p}", hash_file(self._mask(c, p))) for c in self.concepts for p in self.paths]
        return hash_json([files, list(self.size), self.fit, {k: list(v) for k, v in self.concepts.items()}])

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, rows: Rows) -> UInt8[Tensor, "image channel y x"]:
        """See `Pictures`."""
        out = torch.empty(len(rows), 3, *self.size, dtype=torch.uint8)
        for number, row in enumerate(rows):
            out[number] = self._read(self.paths[row])
        return out

    @cached_property
    def _read(self) -> Callable[[str], UInt8[Tensor, "channel y x"]]:
        def fitted(path: str) -> UInt8[Tensor, "channel y x"]:
            image = _fitted(_upright(self._path(path)), self.size, self.fit, Image.Resampling.BICUBIC)
            return torch.from_numpy(np.array(image)).permute(2, 0, 1)

        return lru_cache(KEPT // (3 * math.prod(self.size)))(fitted)

    def classes(self, rows: Rows) -> Int[Tensor, " image"]:
        """See `Masked`.

        Raises:
            BadInput: if the images do not all lie in sub-folders.
        """
        if not self.class_names:
            raise BadInput(
                f"expected every image of {self.name} in a sub-folder that names its class; some lie outside"
            )
        number = {name: i for i, name in enumerate(self.class_names)}
        return torch.tensor([number[self.paths[row].split("/")[0]] for row in rows], dtype=torch.long)

    def masks(self, rows: Rows) -> dict[str, Int[Tensor, "image y x"]]:
        """See `Masked`.

        Raises:
            BadInput: if a map is of another size than its image, or holds an id of no concept.
        """
        out = {category: torch.zeros(len(rows), *self.size, dtype=torch.long) for category in self.concepts}
        for category, names in self.concepts.items():
            for number, row in enumerate(rows):
                path = self._mask(category, self.paths[row])
                ids = _id_map(path)
                upright = _upright_size(self._path(self.paths[row]))
                if ids.size != upright:
                    raise BadInput(f"expected a map of {upright[0]} x {upright[1]} pixels; {path} has {ids.size}")
                fitted = np.array(_fitted(ids, self.size, self.fit, Image.Resampling.NEAREST)).astype(np.int64)
                if fitted.size and (fitted.min() < 0 or fitted.max() > len(names)):
                    raise BadInput(f"expected ids of {category} from 0 to {len(names)}; {path} holds {fitted.max()}")
                out[category][number] = torch.from_numpy(fitted)
        return out

    def _path(self, path: str) -> Path:
        return self.folder / path

    def _mask(self, category: str, path: str) -> Path:
        assert self._masks is not None
        return (self._masks / category / path).with_suffix(".png")

    def _concepts(self, masks: Path) -> dict[str, tuple[str, ...]]:
        path = masks / CONCEPTS
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            concepts = {str(category): tuple(str(n) for n in names) for category, names in record.items()}
        except FileNotFoundError:
            raise BadInput(
                f"expected {path}, with the names of the concepts of each category; it is not there"
            ) from None
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise CorruptFile(f"expected {path} as category -> names; it does not read ({error})") from error
        lacking = [str(m) for c in concepts for p in self.paths if not (m := self._mask(c, p)).is_file()]
        if lacking:
            more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
            raise BadInput(f"expected a map for every image and category; there is no {', '.join(lacking[:5])}{more}")
        return concepts

    def _check(self) -> None:
        """Read every file once, so that all that is wrong is said at once and before any network runs."""
        broken: list[str] = []
        small: list[str] = []
        with Bar(f"{len(self)} images of {self.name}", patience=1.0) as bar:
            for number, path in enumerate(self.paths):
                problem = _problem(self._path(path))
                if problem:
                    broken.append(f"{path} ({problem})")
                elif self.fit == "crop":
                    width, height = _upright_size(self._path(path))
                    if height < self.size[0] or width < self.size[1]:
                        small.append(f"{path} ({height} x {width})")
                bar.tick((number + 1) / len(self))
        if broken:
            raise CorruptFile(f"{len(broken)} files of {self.folder} cannot be read: {_listed(broken)}")
        if small:
            raise BadInput(
                f"expected images of at least {self.size[0]} x {self.size[1]} pixels, for nothing is enlarged; smaller "
                f'are {_listed(small)}. Take them out, or pass fit="pad"'
            )


def _listed(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _images_below(root: Path) -> tuple[tuple[str, ...], int]:
    """Relative paths of all images, sorted, and how many other files there are."""
    inside = root.resolve()
    paths: list[str] = []
    ignored = 0
    for folder, _, files in os.walk(root):  # does not enter links to folders
        for file in files:
            path = Path(folder) / file
            led_out = path.is_symlink() and not path.resolve().is_relative_to(inside)
            if file.startswith(".") or led_out or path.suffix.lower() not in SUFFIXES:
                ignored += 1
            else:
                paths.append(path.relative_to(root).as_posix())
    return tuple(sorted(paths)), ignored


def _problem(path: Path) -> str:
    """What is wrong with a file, or nothing."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > LARGEST:
                return f"claims {image.width} x {image.height} pixels; at most {LARGEST} are read"
            if image.mode == "F":
                return "its pixels are floating numbers of unknown range"
            image.draft("RGB", (1, 1))  # decodes all of a JPEG, at an eighth of its size
            image.load()
    except UnidentifiedImageError:
        return "no image"
    except Image.DecompressionBombError:
        return f"claims far more than {LARGEST} pixels"
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # Pillow raises all of these for damaged files
        return str(error) or type(error).__name__
    return ""


def _upright_size(path: Path) -> tuple[int, int]:
    """(width, height) once it is turned upright."""
    with Image.open(path) as image:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (image.height, image.width) if turned else (image.width, image.height)


def _upright(path: Path) -> Image.Image:
    """An image in RGB, turned as its camera was held."""
    with Image.open(path) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits of grey: keep the upper eight
        return Image.fromarray((np.array(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if upright.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in upright.info:
        clear = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return upright.convert("RGB")


def _id_map(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise BadInput(f"expected an id map of one channel (grey or palette); {path} is {image.mode}")
        return Image.fromarray(np.array(image).astype(np.int32))


def _fitted(image: Image.Image, size: tuple[int, int], fit: str, how: Image.Resampling) -> Image.Image:
    """An image brought to (height, width); never enlarged."""
    height, width = size
    if fit == "crop":
        scale = min(image.width / width, image.height / height)
        wide, high = scale * width, scale * height
        left, top = (image.width - wide) / 2, (image.height - high) / 2
        return image.resize((width, height), how, (left, top, left + wide, top + high))
    scale = min(1.0, width / image.width, height / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    shrunk = image if inner == image.size else image.resize(inner, how)
    out = Image.new(image.mode, (width, height))
    out.paste(shrunk, ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return out
