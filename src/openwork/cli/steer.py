"""`openwork steer MODEL`: a direction, its reliability sheet, or what it makes the network write."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from openwork.cli.command import Common, command, line_of
from openwork.cli.inquiry import Call, carried_out, exit_code, require_vacant
from openwork.cli.loading import open_network
from openwork.cli.options import Model, Out, TrustRemoteCode
from openwork.cli.output import remark, show, show_json
from openwork.errors import BadInput, UnknownName

if TYPE_CHECKING:
    from openwork.control.behaviour import Behaviour
    from openwork.control.pairs import Pairs
    from openwork.direction import Direction
    from openwork.network import Network
    from openwork.results.result import Result

Many = list[float]
Texts = list[str]


class Way(StrEnum):
    """How a direction is applied."""

    add = "add"
    turn = "turn"
    clamp = "clamp"
    project = "project out"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "steer")
    def steer(
        model: Model = "py-4l",
        concept: Annotated[
            str | None, typer.Option(help="A way to write Python: comments, camel-case, tabs or double-quotes.")
        ] = None,
        positive: Annotated[
            Path | None, typer.Option(help="Texts that show a behaviour: one a line, or .jsonl of strings.")
        ] = None,
        negative: Annotated[Path | None, typer.Option(help="As many texts that do not.")] = None,
        direction: Annotated[
            Path | None, typer.Option(help="A direction made before: a folder, a .gguf of repeng, or a .pt.")
        ] = None,
        site: Annotated[str | None, typer.Option(help="Where; the middle of the network unless given.")] = None,
        method: Annotated[
            str, typer.Option(help="mean-difference, pca-differences, pca-centred, logistic or lda.")
        ] = "mean-difference",
        tokens: Annotated[str, typer.Option(help="Tokens of the pairs: body (all), or last.")] = "body",
        way: Annotated[Way, typer.Option(help="How the direction is applied.")] = Way.add,
        since: Annotated[int, typer.Option(help="From which decoding step on; 0 is the prompt.")] = 0,
        dose: Annotated[Many | None, typer.Option(help="In lengths of the direction; again for more.")] = None,
        text: Annotated[Texts | None, typer.Option(help="Continue this, steered and not; again for more.")] = None,
        source: Annotated[Path | None, typer.Option(help="Code for pairs and prompts of a concept.")] = None,
        prompts: Annotated[int, typer.Option(help="Held-out prompts; three quarters as many to find with.")] = 48,
        new_tokens: Annotated[int, typer.Option(help="Tokens written after each prompt.")] = 32,
        temperature: Annotated[float, typer.Option(help="Of sampling; 0 for the most likely token.")] = 1.0,
        alpha: Annotated[float, typer.Option(help="Accepted rate of false support; 5 / alpha controls.")] = 0.1,
        save: Annotated[
            Path | None, typer.Option(help="Keep the direction: a folder, a .gguf for repeng, or a .pt.")
        ] = None,
        out: Out = None,
        trust_remote_code: TrustRemoteCode = False,
        *,
        common: Common,
    ) -> int | None:
        """Make a direction and test how far it can be relied on, or continue texts with and without it."""
        line = _line(locals())
        from openwork.control.concepts import Sizes
        from openwork.control.reliability import Reliability
        from openwork.control.sampling import Sampling
        from openwork.control.steering import Steering
        from openwork.results.claims import Standard
        from openwork.site import Where

        if out is not None:
            require_vacant(out.resolve(), line)
        _require_one(concept, positive, negative, direction)
        net = open_network(model, common, trust_remote_code)
        sampling = Sampling(temperature, seed=common.seed)
        find = max(4, prompts * 3 // 4)
        sizes = Sizes(find=find, held_out=prompts, new_tokens=new_tokens, sampling=sampling, seed=common.seed)
        pairs, behaviour = _asked(net, concept, positive, negative, source, sizes, common.seed)
        at = site or f"blocks.{net.n_blocks // 2}.resid_post"
        found = _directions(net, pairs, direction, at, method, tokens, common.seed)
        if save is not None:
            _keep(found, save, net)
        where = Where(since=since)
        if text:
            steering = Steering(found, way.value, where)
            return _side_by_side(net, text, steering, dose or [1.0, 2.0], new_tokens, sampling, common)
        if behaviour is None:
            if save is not None:
                return None
            raise BadInput("expected --concept, or --positive and --negative, to test the direction on; or --text")
        test = Reliability(way.value, where, standard=Standard(alpha=alpha), seed=common.seed)
        test = replace(test, doses=tuple(dose)) if dose else test
        layers = _layers(net, pairs, found, direction, method, tokens, common.seed)
        from openwork.control.reliability import reliability

        def run(tick: Callable[[float], None]) -> Result:
            return reliability(net, found, behaviour, test, layers=layers, tick=tick)

        return exit_code(carried_out(Call("steer", line, out, common), run), True)


def _line(given: dict[str, Any]) -> str:
    """The command line that does the same again, wherever it writes to."""
    left_out = {"model", "out", "save", "common"}
    asked = {name: value for name, value in given.items() if name not in left_out}
    return line_of("steer", [given["model"]], asked, given["common"])


def _require_one(concept: str | None, positive: Path | None, negative: Path | None, direction: Path | None) -> None:
    if (positive is None) is not (negative is None):
        raise BadInput("expected --positive and --negative together; got one of them")
    if concept is not None and positive is not None:
        raise BadInput("expected --concept, or --positive and --negative; got both")
    if concept is None and positive is None and direction is None:
        raise BadInput("expected --concept, --positive with --negative, or --direction; got none of them")


def _asked(
    net: Network, concept: str | None, positive: Path | None, negative: Path | None, source: Path | None, sizes: Any,
    seed: int,
) -> tuple[Pairs | None, Behaviour | None]:  # fmt: skip
    """The pairs to make a direction from, and what it is to change."""
    from openwork.control.concepts import CONCEPTS, prepare
    from openwork.control.pairs import Pairs
    from openwork.control.preference import Preference

    if concept is not None:
        if concept not in CONCEPTS:
            hint = "For one of your own give --positive and --negative."
            raise UnknownName.among("concept", concept, CONCEPTS, hint)
        made = prepare(net, CONCEPTS[concept], concept, source, sizes)
        return made.pairs, made.writing
    if positive is None or negative is None:
        return None, None
    pairs = Pairs.of(net, read_texts(positive), read_texts(negative), seed=seed)
    return pairs, Preference.of(net, pairs)


def read_texts(path: Path) -> list[str]:
    """Texts of a file: one a line, or in a ``.jsonl`` one JSON string, or object with ``text``, a line.

    Raises:
        BadInput: if it cannot be read, holds no text, or a line of a ``.jsonl`` is no text.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"expected a text file at {path}; {error}") from error
    if path.suffix == ".jsonl":
        lines = [_text(line, number, path) for number, line in enumerate(lines, 1)]
    if not lines:
        raise BadInput(f"expected texts in {path}, one a line; it holds none")
    return lines


def _text(line: str, number: int, path: Path) -> str:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"expected JSON in line {number} of {path}; {error}") from error
    value = value.get("text") if isinstance(value, dict) else value
    if not isinstance(value, str) or not value:
        raise BadInput(f'expected a string, or {{"text": …}}, in line {number} of {path}; got {line[:60]!r}')
    return value


def _directions(
    net: Network, pairs: Pairs | None, path: Path | None, site: str, method: str, tokens: str, seed: int
) -> list[Direction]:
    from openwork.control.contrast import METHODS, contrast
    from openwork.control.files import load, read_gguf, read_steering_vectors

    if path is not None:
        read = {".gguf": read_gguf, ".pt": read_steering_vectors}.get(path.suffix, load)
        return read(path)
    if method not in METHODS:
        raise UnknownName.among("method", method, METHODS)
    assert pairs is not None
    return [contrast(net, pairs, one, METHODS[method], tokens, seed) for one in net.select(site)]


def _layers(
    net: Network,
    pairs: Pairs | None,
    found: Sequence[Direction],
    path: Path | None,
    method: str,
    tokens: str,
    seed: int,
) -> list[Direction] | None:
    """The same direction made at every layer, where it is made of pairs at one."""
    from openwork.control.contrast import METHODS, contrast

    if pairs is None or path is not None or len(found) > 1 or found[0].site.block is None or found[0].site.index:
        return None
    sites = net.select(f"blocks.*.{found[0].site.kind}")
    return [contrast(net, pairs, one, METHODS[method], tokens, seed) for one in sites]


def _keep(directions: Sequence[Direction], path: Path, net: Network) -> None:
    from openwork.control.files import save, write_gguf, write_steering_vectors

    if path.suffix == ".gguf":
        write_gguf(directions, path, getattr(getattr(net.root, "config", None), "model_type", net.name))
    elif path.suffix == ".pt":
        write_steering_vectors(directions, path)
    else:
        save(directions, path)
    remark(f"direction: {path}")


def _side_by_side(
    net: Network, texts: Sequence[str], steering: Any, doses: Sequence[float], new_tokens: int, sampling: Any,
    common: Common,
) -> None:  # fmt: skip
    from openwork.control.sampling import write

    found = write(net, texts, steering, doses, new_tokens=new_tokens, sampling=sampling)
    if common.json:
        written = {f"{dose:g}": list(rows) for dose, rows in found.texts.items()}
        show_json({"prompts": list(found.prompts), "texts": written})
        return
    for number, prompt in enumerate(found.prompts):
        table = Table(title=Text(prompt), title_justify="left", show_lines=True)
        for dose in found.texts:
            table.add_column("unsteered" if dose == 0 else f"dose {dose:g}", overflow="fold", ratio=1)
        # tabs are shown, not spread out
        table.add_row(*(Text(rows[number].replace("\t", "→   ")) for rows in found.texts.values()))
        show(table)
