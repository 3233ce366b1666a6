"""`openwork watch`: what appears in the checkpoints of a training, and when. `openwork units`: names of units."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from openwork.cli.command import Common, command, line_of
from openwork.cli.inquiry import Call, carried_out, exit_code
from openwork.cli.loading import open_network
from openwork.cli.options import Model, Out, RealText, TrustRemoteCode
from openwork.errors import BadInput

if TYPE_CHECKING:
    from openwork.learning.checkpoints import Checkpoints
    from openwork.results.result import Result


class Of(StrEnum):
    """What is watched."""

    induction = "induction"
    addition = "addition"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    _register_units(app)

    @command(app, "watch")
    def watch(
        checkpoints: Annotated[
            list[str],
            typer.Argument(
                help="An embedded name with checkpoints such as py-attn2, a folder of checkpoints, or several: "
                "name@step-500, folders, hub ids with revisions such as ID@step1000."
            ),
        ],
        of: Annotated[
            Of | None, typer.Option(help="What to watch; what the network is known for, or else induction heads.")
        ] = None,
        twin: Annotated[
            str | None,
            typer.Option(help="Checkpoints of a training without what should cause it; the rival of each claim."),
        ] = None,
        like: Annotated[
            str | None,
            typer.Option(help="For bare weight files: the model whose configuration and tokenizer they have."),
        ] = None,
        text: RealText = None,
        rows: Annotated[int, typer.Option(help="Rows of text, about half of them held out.")] = 384,
        alpha: Annotated[float, typer.Option(help="Accepted rate of false support, of all claims together.")] = 0.05,
        out: Out = None,
        *,
        common: Common,
    ) -> int:
        """Watch a network learn: scores, losses and geometry by step, and the steps between which each changes."""
        from openwork.learning.checkpoints import Placing, read
        from openwork.learning.watch import Watching, watch

        options = {"of": of, "twin": twin, "like": like, "text": text, "rows": rows, "alpha": alpha}

        def run(tick: Callable[[float], None]) -> Result:
            placing = Placing(common.device, common.dtype.value)
            found = read(checkpoints[0] if len(checkpoints) == 1 else checkpoints, like, placing)
            other = None if twin is None else read(twin, like, placing)
            subject = _subject(of, found, text, rows, common.seed)
            return watch(found, subject, Watching(alpha=alpha, seed=common.seed), twin=other, tick=tick)

        call = Call("watch", line_of("watch", checkpoints, options, common), out, common)
        return exit_code(carried_out(call, run), True)


def _register_units(app: typer.Typer) -> None:
    @command(app, "units")
    def units(
        model: Model = "py-4l",
        site: Annotated[str, typer.Option(help="Site or pattern with units.")] = "blocks.*.mlp.hidden",
        text: Annotated[
            Path | None, typer.Option(help="File or folder of Python; openwork's own source unless given.")
        ] = None,
        tokens: Annotated[int, typer.Option(help="Tokens that are looked at, about half of them held out.")] = 6000,
        out: Out = None,
        trust_remote_code: TrustRemoteCode = False,
        *,
        common: Common,
    ) -> None:
        """Name hidden units by true labels of Python, beside random directions of their space; claims nothing."""
        from openwork.learning.selectivity import Naming, selectivity

        options = {"site": site, "text": text, "tokens": tokens, "trust_remote_code": trust_remote_code}

        def run(tick: Callable[[float], None]) -> Result:
            net = open_network(model, common, trust_remote_code)
            return selectivity(net, text, site, Naming(tokens=tokens, seed=common.seed), tick=tick)

        carried_out(Call("units", line_of("units", [model], options, common), out, common), run, _bases)


def _bases(result: Result) -> Table:
    """One row for each site and basis."""
    told = ("mean_score", "detectors", "only_one", "mean_purity", "mean_kurtosis")
    table = Table("site", "basis", *(name.replace("_", " ") for name in told), box=None)
    for site in result.table["site"].to_numpy().tolist():
        for basis in result.table["basis"].to_numpy().tolist():
            cells = []
            for name in told:
                ends = (result.table[name + end].sel(site=site, basis=basis).item() for end in ("", "_low", "_high"))
                cells.append("{:.3f} [{:.3f}, {:.3f}]".format(*ends))
            table.add_row(site, basis, *cells)
    return table


def _subject(of: Of | None, found: Checkpoints, text: Path | None, rows: int, seed: int) -> Any:
    """What to watch; a network whose card names a prime adds modulo that."""
    from openwork.learning.grokking import Grokking
    from openwork.learning.induction import Birth, Rows

    data = found.facts.get("card", {}).get("data", {})
    if of is None:
        of = Of.addition if "prime" in data else Of.induction
    if of is Of.addition:
        if text is not None:
            raise BadInput("expected no text for addition: its rows are all pairs of numbers; leave out --text")
        return lambda net: Grokking.of(net, int(data.get("split_seed", 0)), seed)
    return lambda net: Birth.of(net, Rows(text, rows, seed=seed))
