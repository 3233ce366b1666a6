"""The style sheets and the script of a report, as files of the package."""

from __future__ import annotations

from importlib.resources import files

_FOLDER = files("openwork.reports") / "templates"
STYLE = (_FOLDER / "style.css").read_text(encoding="utf-8")
"""Colours, and how pictures look."""
PAGE = (_FOLDER / "page.css").read_text(encoding="utf-8")
"""How the rest of the page looks."""
SCRIPT = (_FOLDER / "script.js").read_text(encoding="utf-8")
"""Reading attention token by token."""
