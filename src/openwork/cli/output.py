"""What is printed where: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from rich.console import Console, RenderableType
from rich.logging import RichHandler
from rich.markup import escape


def data() -> Console:
    """The console for results; a file or a pipe gets whole lines, whatever their length."""
    return Console(width=None if sys.stdout.isatty() else 240)


def notes() -> Console:
    """The console for progress, logs and errors."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


def show(value: RenderableType) -> None:
    """Print a result for a reader."""
    data().print(value)


def show_json(value: Any) -> None:
    """Print a result for a program."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def complain(message: str) -> None:
    """Print one error, in red where there are colours."""
    notes().print(f"[bold red]error:[/] {escape(message)}")


def remark(message: str) -> None:
    """Print one remark on stderr."""
    notes().print(escape(message))


def log_to_stderr(quiet: bool) -> None:
    """Send the log of openwork to stderr; `quiet` leaves warnings and errors only."""
    logger = logging.getLogger("openwork")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.addHandler(RichHandler(console=notes(), show_path=False, show_time=False, show_level=False))
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False
