"""`openwork cache`: what is cached, and cleaning it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.table import Table

from openwork.cli.command import Common, command
from openwork.cli.output import remark, show, show_json
from openwork.store import CacheEntry, cache_folder, clean_cache, code_version, list_cache

app = typer.Typer(help="List and clean what is cached.", no_args_is_help=True)


def _record(entry: CacheEntry) -> dict[str, object]:
    return {
        "path": str(entry.path),
        "kind": entry.kind,
        "whole": entry.whole,
        "current": entry.key.get("code") == code_version(),
        "bytes": entry.n_bytes,
        "key": entry.key,
    }


@command(app, "list")
def list_(common: Common) -> None:
    """List the entries: what they depend on, their size, whether this version made them."""
    entries = list(list_cache())
    if common.json:
        show_json({"folder": str(cache_folder()), "entries": [_record(entry) for entry in entries]})
        return
    remark(f"{cache_folder()}: {len(entries)} entries, {decimal(sum(entry.n_bytes for entry in entries))}")
    if entries:
        table = Table("kind", "model", "data", "site", "dtype", "made by", "size", "written")
        for entry in entries:
            key = entry.key
            parts = [key.get(name, "")[:12] for name in ("model", "data")] + [key.get("site", ""), key.get("dtype", "")]
            made_by = "half written" if not entry.whole else "now" if _record(entry)["current"] else "another version"
            when = datetime.fromtimestamp(entry.modified, UTC).strftime("%Y-%m-%d %H:%M")
            table.add_row(entry.kind, *parts, made_by, decimal(entry.n_bytes), when)
        show(table)


@command(app, "clean")
def clean(
    kind: Annotated[str | None, typer.Argument(help="Only entries of this kind.")] = None,
    stale: Annotated[bool, typer.Option(help="Only half-written entries and those of other versions.")] = False,
    *,
    common: Common,
) -> None:
    """Delete entries; what is deleted is computed again when it is needed."""
    deleted = clean_cache(kind, stale_only=stale)
    freed = sum(entry.n_bytes for entry in deleted)
    if common.json:
        show_json({"deleted": [_record(entry) for entry in deleted], "bytes": freed})
    else:
        remark(f"deleted {len(deleted)} entries, {decimal(freed)}")
