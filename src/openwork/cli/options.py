"""Options that several commands take, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str, typer.Argument(help="An embedded name, one of the zoo such as compiled/ioi, a local folder, or a hub id.")
]
RealText = Annotated[Path | None, typer.Option(help="File or folder of real text; openwork's own source unless given.")]
Claims = Annotated[int, typer.Option(help="How many of the best to test on held-out examples.")]
Alpha = Annotated[float, typer.Option(help="Accepted rate of false support; 5 / alpha controls are drawn.")]
Memory = Annotated[str, typer.Option(help="Budget for what runs at once, such as 4GiB.")]
Out = Annotated[
    Path | None, typer.Option(help="Folder for result.json, arrays.npz and report.html; unwritten unless given.")
]
TrustRemoteCode = Annotated[bool, typer.Option(help="Run code that comes with the model. Off unless you say so.")]
