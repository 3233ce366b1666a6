"""The folder of a study in, one self-contained page out."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from openwork.errors import BadInput, CorruptFile
from openwork.reports.page import page
from openwork.store import read_arrays, read_json, write_text
from openwork.studies.schema import VERSION, Study

RECORD, ARRAYS, REPORT = "study.json", "arrays.npz", "report.html"


def render(folder: str | Path) -> Path:
    """Write ``report.html`` next to ``study.json``.

    Args:
        folder: where a study was written.

    Returns:
        The path of the page.

    Raises:
        BadInput: if the folder holds no study.
        CorruptFile: if the study is damaged or of another version.
        OutputOccupied: if the page cannot be written.
    """
    folder = Path(folder)
    if not (folder / RECORD).is_file():
        raise BadInput(f"expected the folder of a study, with a {RECORD} in it; {folder} has none")
    record = read_json(folder / RECORD)
    version = record.get("schema_version") if isinstance(record, dict) else None
    if version != VERSION:
        raise CorruptFile(f"expected a study of schema version {VERSION} in {folder / RECORD}; got version {version!r}")
    try:
        study = Study.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CorruptFile(
            f"expected a whole study in {folder / RECORD}; {error.error_count()} fields do not fit, first {where}: "
            f"{first['msg']}"
        ) from error
    arrays = read_arrays(folder / ARRAYS) if (folder / ARRAYS).is_file() else {}
    return write_text(folder / REPORT, page(study, arrays))
