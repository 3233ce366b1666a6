"""The command line. Data goes to stdout, progress and logs to stderr; heavy imports wait until a command needs them."""

from openwork.cli.app import app, main

__all__ = ["app", "main"]
