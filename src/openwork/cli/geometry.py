"""`openwork geometry`, `compare`, `drift` and `picture`: representations of one network, of two, over time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli.command import Common, command, line_of
from openwork.cli.inquiry import Call, carried_out, exit_code
from openwork.cli.loading import open_network
from openwork.cli.options import Alpha, Model, Out, RealText, TrustRemoteCode
from openwork.cli.pictures import Corpus
from openwork.errors import BadInput

if TYPE_CHECKING:
    from openwork.geometry.samples import Material
    from openwork.network import Network
    from openwork.results.result import Result

Measure = Annotated[str, typer.Option(help="cka, svcca, pwcca or procrustes.")]
Tick = Callable[[float], None]
SITES, PARTS = "blocks.*.resid_post", "blocks.*.attn.z"
Parts = Annotated[
    str | None,
    typer.Option(
        help="Whose heads or units are matched; blocks.*.attn.z, or the blocks' outputs where images are read."
    ),
]
LENGTH = 240
"""Characters of each piece of real text."""


@dataclass(frozen=True)
class Observing:
    """The options of every command that looks at representations."""

    task: Annotated[
        str | None, typer.Option(help="Read the inputs of a task; real text, or the zoo's own, unless given.")
    ] = None
    n: Annotated[int, typer.Option(help="Texts that are read, half of them held out.")] = 48
    text: RealText = None
    tokens: Annotated[int, typer.Option(help="Places of each text, or image, that are looked at.")] = 24
    pictures: Annotated[
        str | None,
        typer.Option(help="For networks that see: a folder of images, or shapes, which is read unless given."),
    ] = None
    fit: Annotated[str | None, typer.Option(help="crop or pad: how photographs come to a model's size.")] = None
    pooled: Annotated[bool, typer.Option("--pooled", help="Of images, compare means over all places.")] = False
    alpha: Alpha = 0.05
    out: Out = None
    trust_remote_code: TrustRemoteCode = False

    def material(self, model: str, nets: Sequence[Network], common: Common) -> Material:
        """The inputs for some networks: what the first, which goes by this name, reads; images at the size of each.

        Raises:
            BadInput: if there are too few, both a task that writes its text and a text, or images for networks that
                read none.
        """
        from openwork import tasks, zoo
        from openwork.cli.study import reads_text
        from openwork.geometry.views import Views
        from openwork.network.image_format import needs_images
        from openwork.zoo.opening import is_member

        net, seed = nets[0], common.seed
        if self.pictures is not None or (self.task is None and self.text is None and net.images is not None):
            if self.task is not None or self.text is not None:
                raise BadInput("expected --pictures or a text, not both; leave out --task and --text")
            corpus = Corpus(self.pictures or "shapes", count=self.n, fit=self.fit or "crop")
            read = {size: corpus.read(one, common) for one in nets for size in [needs_images(one).size]}
            return Views(tuple(read[needs_images(one).size] for one in nets))
        if self.task is not None:
            source = self.text if self.text is not None or reads_text(self.task) else None
            return tasks.make(self.task, net, n=self.n, seed=seed, source=source).clean
        if is_member(model) and self.text is None:
            return zoo.open(model).task(self.n, seed).clean
        return pieces(self.text, self.n, seed)

    def knobs(self, seed: int) -> dict[str, Any]:
        """What the knobs of all their methods share."""
        from openwork.geometry.samples import Sampling
        from openwork.results.claims import Standard

        return {
            "sampling": Sampling(self.tokens, seed=seed, pooled=self.pooled),
            "standard": Standard(alpha=self.alpha),
            "seed": seed,
        }

    def call(self, name: str, models: Sequence[str], options: Mapping[str, Any], common: Common) -> Call:
        """The command that was called."""
        own = {option.name: getattr(self, option.name) for option in fields(self) if option.name != "out"}
        return Call(name, line_of(name, models, {**options, **own}, common), self.out, common)


def pieces(source: Path | None, n: int, seed: int) -> list[str]:
    """Pieces of real text, chosen at random; whole lines where there are any.

    Raises:
        BadInput: if there are fewer than asked for.
    """
    import numpy as np

    from openwork.tasks.source import texts

    found = []
    for _, text in texts(source):
        piece = ""
        for line in text.splitlines(keepends=True):
            piece += line
            if len(piece) >= LENGTH:
                found.append(piece[: 2 * LENGTH])
                piece = ""
    if len(found) < n:
        raise BadInput(
            f"expected {n} pieces of {LENGTH} characters; the text has {len(found)}: give more, or a smaller --n"
        )
    chosen = np.random.default_rng(seed).permutation(len(found))[:n]
    return [found[i] for i in chosen]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "geometry")(geometry)
    command(app, "compare")(compare)
    command(app, "drift")(drift)
    command(app, "picture")(picture)


def geometry(
    model: Model = "py-4l",
    site: Annotated[str, typer.Option(help="One site of each layer.")] = SITES,
    measure: Measure = "cka",
    stop: Annotated[float, typer.Option(help="Share of the weight that a cut into phases must separate.")] = 0.15,
    observing: Observing = Observing(),
    *,
    common: Common,
) -> int:
    """Layers by layers: similarity, phases against random walks, dimensions against shuffled weights."""
    from openwork.geometry.panel import Panel, panel

    def run(tick: Tick) -> Result:
        net = open_network(model, common, observing.trust_remote_code)
        material = observing.material(model, [net], common)
        return panel(net, material, site, Panel(measure, stop, **observing.knobs(common.seed)), tick=tick)

    call = observing.call("geometry", [model], {"site": site, "measure": measure, "stop": stop}, common)
    return exit_code(carried_out(call, run), claims=False)


def compare(
    model: Model,
    other: Annotated[str, typer.Argument(help="The network to compare it with.")],
    site: Annotated[str, typer.Option(help="Whose representations are compared.")] = SITES,
    parts: Parts = None,
    other_site: Annotated[str | None, typer.Option(help="Of the other network, where it is named otherwise.")] = None,
    other_parts: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    measure: Measure = "cka",
    observing: Observing = Observing(),
    *,
    common: Common,
) -> int:
    """How alike two networks are, which heads or units they share, and whether these can stand in for each other."""
    from openwork.geometry.panel import Panel
    from openwork.geometry.panel import compare as compared

    def run(tick: Tick) -> Result:
        net, twin = (open_network(name, common, observing.trust_remote_code) for name in (model, other))
        material = observing.material(model, [net, twin], common)
        method = Panel(measure, **observing.knobs(common.seed))
        matched = parts or (PARTS if net.images is None else SITES)
        return compared(net, twin, material, site, matched, method, other_site, other_parts, tick=tick)

    own = {"site": site, "parts": parts, "other_site": other_site, "other_parts": other_parts, "measure": measure}
    call = observing.call("compare", [model, other], own, common)
    return exit_code(carried_out(call, run), claims=True)


def drift(
    checkpoints: Annotated[
        list[str], typer.Argument(help="A name with checkpoints, a folder of them, or several networks in order.")
    ],
    site: Annotated[str, typer.Option(help="Whose representations are followed.")] = SITES,
    parts: Parts = None,
    observing: Observing = Observing(alpha=0.25),
    *,
    common: Common,
) -> int:
    """How representations change over a training or a fine-tuning: what appeared, moved and vanished, and when."""
    from openwork.geometry.drift import Drifting
    from openwork.geometry.drift import drift as followed

    def run(tick: Tick) -> Result:
        names = expanded(checkpoints)
        nets = [open_network(name, common, observing.trust_remote_code) for name in names]
        material = observing.material(names[0], nets, common)
        followed_parts = parts or (PARTS if nets[0].images is None else SITES)
        knobs = observing.knobs(common.seed)
        method = Drifting(updates=knobs["standard"].criteria(1.0, "").controls_needed, **knobs)
        return followed(
            nets, material, site, followed_parts, method, names=[Path(name).name for name in names], tick=tick
        )

    call = observing.call("drift", checkpoints, {"site": site, "parts": parts}, common)
    return exit_code(carried_out(call, run), claims=False)


def picture(
    model: Model = "py-4l",
    site: Annotated[str | None, typer.Option(help="One site; the last block's output unless given.")] = None,
    how: Annotated[str, typer.Option(help="pca, or umap where umap-learn is installed.")] = "pca",
    label: Annotated[
        str | None,
        typer.Option(help="What colours a place: kind (of token), token or position; of images, class."),
    ] = None,
    observing: Observing = Observing(),
    *,
    common: Common,
) -> int:
    """One site in two dimensions, coloured by label, and how well the picture tells the labels of held-out texts."""
    from openwork.geometry.projection import Projection, project

    def run(tick: Tick) -> Result:
        net = open_network(model, common, observing.trust_remote_code)
        material = observing.material(model, [net], common)
        at = site or f"blocks.{net.n_blocks - 1}.resid_post"
        method = Projection(how, **observing.knobs(common.seed))
        return project(net, material, at, labelled(net, material, label), method)

    call = observing.call("picture", [model], {"site": site, "how": how, "label": label}, common)
    return exit_code(carried_out(call, run), claims=False)


def expanded(checkpoints: Sequence[str]) -> list[str]:
    """The networks that are meant: of one name its checkpoints, of one folder those in it, in order of their steps.

    Raises:
        BadInput: if there are fewer than two.
    """
    from openwork import zoo

    names = list(checkpoints)
    if len(names) == 1:
        (one,) = names
        if one in zoo.names():
            names = [f"{one}@{step}" for step in zoo.checkpoints(one)]
        elif Path(one).is_dir():
            inside = [(re.search(r"(\d+)$", path.name), path) for path in Path(one).iterdir() if path.is_dir()]
            names = [str(path) for _, path in sorted((int(m[1]), path) for m, path in inside if m)]
    if len(names) < 2:
        raise BadInput(
            f"expected a name with checkpoints, a folder with subfolders whose names end in their step, or several "
            f"networks; {' '.join(checkpoints)} gives {len(names)}"
        )
    return names


def labelled(net: Network, material: Any, label: str | None) -> list[list[str]] | list[str]:
    """A label of every token of every text, or of every image.

    Raises:
        BadInput: an unknown label, inputs that are no tokens, or images of which nothing is said.
    """
    from openwork.geometry.views import Views
    from openwork.task import Inputs

    if isinstance(material, Views):
        return _classes(material.corpora[0], label)
    label = label or "kind"
    if label not in LABELS:
        raise BadInput(f"expected a label of {tuple(LABELS)}; got {label!r}")
    rows = material.ids if isinstance(material, Inputs) else [net.encode(text) for text in material]
    if net.tokenizer is None and label == "kind":
        raise BadInput("this network has no tokenizer, so its tokens are of no kind; use --label token or position")
    return [LABELS[label](net, row) for row in rows]


def _classes(corpus: Any, label: str | None) -> list[str]:
    if label not in (None, "class"):
        raise BadInput(f"expected the label class of images; got {label!r}")
    names = getattr(corpus, "class_names", ())
    if not names:
        raise BadInput(f"{corpus.name} does not say what class an image is of: give --pictures shapes, or masks")
    return [names[int(i)] for i in corpus.classes(range(len(corpus)))]


def _kinds(net: Network, row: Sequence[int]) -> list[str]:
    return [_kind(token) for token in net.tokens(row)]


def _kind(token: str) -> str:
    if not token.strip():
        return "space"
    bare = token.strip()
    return "word" if re.fullmatch(r"[^\W\d]\w*", bare) else "number" if bare[0].isdigit() else "sign"


def _itself(net: Network, row: Sequence[int]) -> list[str]:
    return [f"{i}" for i in row] if net.tokenizer is None else [repr(token) for token in net.tokens(row)]


def _thirds(net: Network, row: Sequence[int]) -> list[str]:
    return [("early", "middle", "late")[min(2, 3 * i // len(row))] for i in range(len(row))]


LABELS: dict[str, Callable[[Any, Sequence[int]], list[str]]] = {"kind": _kinds, "token": _itself, "position": _thirds}
