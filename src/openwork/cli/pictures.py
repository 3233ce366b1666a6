"""How commands that look at images name a network, what it wants of an image, and a corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from openwork.cli.command import Common, line_of
from openwork.cli.inquiry import Call, carried_out
from openwork.cli.loading import open_network
from openwork.cli.options import Out, TrustRemoteCode
from openwork.errors import BadInput, UnknownName

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.pictures import Pictures
    from openwork.results.result import Result

SHAPES = "shapes"

VisionModel = Annotated[
    str, typer.Argument(metavar="MODEL", help="An embedded name such as shapes-cnn, a local folder, or a hub id.")
]
Units = Annotated[
    list[str],
    typer.Argument(metavar="UNIT...", help="Sites with channels, such as blocks.2.resid_post[3,7] or logits[2]."),
]


@dataclass(frozen=True)
class Door:
    """The options of what a network wants of an image, and of the folder that its result goes to."""

    size: Annotated[
        str | None, typer.Option(help="Pixels, as 224 or 224x160, for a model that does not say what it reads.")
    ] = None
    mean: Annotated[
        str | None, typer.Option(help="Of red, green and blue in [0, 1], as 0.485,0.456,0.406; likewise.")
    ] = None
    sd: Annotated[str | None, typer.Option(help="Likewise, as 0.229,0.224,0.225.")] = None
    out: Out = None
    trust_remote_code: TrustRemoteCode = False

    def words(self) -> dict[str, Any]:
        """What a command line says of them again."""
        return {"size": self.size, "mean": self.mean, "sd": self.sd, "trust_remote_code": self.trust_remote_code}

    def open(self, model: str, common: Common) -> Network:
        """Open a network that reads images.

        Raises:
            BadInput: if it reads none, nothing says what it wants of them, or an option is no number.
        """
        from openwork.network.image_format import needs_images
        from openwork.pictures import ImageFormat

        net = open_network(model, common, self.trust_remote_code)
        if net.preparer.axes is not None and (self.size or self.mean or self.sd):
            given = net.images or ImageFormat()
            mean = given.mean if self.mean is None else numbers("--mean", self.mean)
            sd = given.sd if self.sd is None else numbers("--sd", self.sd)
            net.images = replace(given, size=given.size if self.size is None else pixels(self.size), mean=mean, sd=sd)
        try:
            needs_images(net)
        except BadInput as error:
            if net.preparer.axes is None:
                raise
            raise BadInput(
                f"{net.name} does not say what it wants of an image; give --size, --mean and --sd as it was trained"
            ) from error
        return net


@dataclass(frozen=True)
class Corpus:
    """The options of a corpus of images."""

    pictures: Annotated[str, typer.Option(help="A folder of images, or shapes: scenes in which all is known.")] = SHAPES
    masks: Annotated[
        Path | None, typer.Option(help="Folder of id maps and concepts.json for a folder of images; see docs.")
    ] = None
    count: Annotated[
        int | None, typer.Option(help="Images: the first of a folder, all unless given; 600 of shapes.")
    ] = None
    fit: Annotated[str, typer.Option(help="crop or pad: how photographs come to the model's size.")] = "crop"

    def words(self) -> dict[str, Any]:
        """What a command line says of them again."""
        return {
            "pictures": self.pictures, "masks": self.masks, "count": self.count,
            "fit": None if self.fit == "crop" else self.fit,
        }  # fmt: skip

    def read(self, net: Network, common: Common, split: str = "find") -> Pictures:
        """The corpus, at the size that a network reads.

        Args:
            net: the network.
            common: brings the seed of shapes.
            split: of shapes; find and held-out images of a corpus are told apart by the method.

        Raises:
            BadInput: if there are no such images, or none at the network's size.
            UnknownName: for a way to fit that does not exist.
        """
        from openwork.network.image_format import needs_images

        if self.fit not in ("crop", "pad"):
            raise UnknownName.among("way to fit images", self.fit, ("crop", "pad"))
        if self.count is not None and self.count < 1:
            raise BadInput(f"expected one image or more; got --count {self.count}")
        size = needs_images(net).size
        if size is None:
            raise BadInput(f"{net.name} reads images of any size; say which with --size")
        if self.pictures == SHAPES and not Path(SHAPES).is_dir():
            if self.masks is not None:
                raise BadInput("expected --masks with a folder of images; shapes bring their own")
            if size[0] != size[1]:
                raise BadInput(f"expected a square size for shapes; {net.name} reads {size[0]} x {size[1]}")
            from openwork.worlds.shapes import Shapes

            return Shapes(common.seed, size[0], split, 600 if self.count is None else self.count)
        from openwork.worlds.photographs import Photographs

        found: Any = Photographs(self.pictures, size, "pad" if self.fit == "pad" else "crop", self.masks)
        return found if self.count is None or self.count >= len(found) else cast("Pictures", First(found, self.count))


class First:
    """The first images of a corpus, with all that it says of them.

    Args:
        whole: the corpus.
        count: how many.
    """

    def __init__(self, whole: Any, count: int):
        self._whole, self._count = whole, count

    def __len__(self) -> int:
        return self._count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    @property
    def digest(self) -> str:
        """Of the whole corpus, and how many are read."""
        return f"{self._whole.digest}:{self._count}"


def seen(
    name: str,
    model: str,
    arguments: list[str],
    options: Mapping[str, tuple[Any, Any]],
    groups: tuple[Door, Corpus | None],
    common: Common,
    run: Callable[[Network, Pictures | None, Callable[[float], None]], Result],
) -> Result:
    """Open the network and the corpus, run a method on them, print and keep what came out.

    Args:
        name: of the command.
        model: as it was named.
        arguments: others, in their order.
        options: of the method: name -> its value and what is usual, which the line that repeats the call leaves out.
        groups: how images come in, and which.
        common: what every command takes.
        run: the method: of the network, the corpus (None where the method draws its own) and what is told the share
            that is done.
    """
    door, corpus = groups
    changed = {name: value for name, (value, usual) in options.items() if value != usual}
    words = {**(corpus.words() if corpus else {}), **door.words(), **changed}

    def answer(tick: Callable[[float], None]) -> Result:
        net = door.open(model, common)
        return run(net, corpus.read(net, common) if corpus else None, tick)

    return carried_out(Call(name, line_of(name, [model, *arguments], words, common), door.out, common), answer)


def numbers(flag: str, text: str) -> tuple[float, ...]:
    """Numbers with commas between them.

    Raises:
        BadInput: if they are none, or not one or three.
    """
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise BadInput(f"expected {flag} as one or three numbers such as 0.485,0.456,0.406; got {text!r}") from error
    if len(found) not in (1, 3):
        raise BadInput(f"expected {flag} as one or three numbers such as 0.485,0.456,0.406; got {text!r}")
    return found


def pixels(text: str) -> tuple[int, int]:
    """A size as height and width.

    Raises:
        BadInput: if it is none.
    """
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdigit() and int(part) for part in parts):
        raise BadInput(f"expected --size as 224, or as height x width such as 224x160; got {text!r}")
    height, width = (int(part) for part in (parts * 2 if len(parts) == 1 else parts))
    return height, width
