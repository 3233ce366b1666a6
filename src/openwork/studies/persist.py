"""The folder of a study: written whole or not at all, resumed by the same study, refused to any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from openwork.errors import CorruptFile, OutputOccupied
from openwork.store.files import read_arrays, write_arrays, write_text
from openwork.studies.schema import Study

RECORD, ARRAYS = "study.json", "arrays.npz"


class Folder:
    """Where one study lives.

    Args:
        path: the folder; made if it does not exist.
        key: what identifies the study (`Study.key`).

    Raises:
        OutputOccupied: if it cannot be written, or holds something else.
        CorruptFile: if it holds a study that does not parse.
    """

    def __init__(self, path: str | Path, key: str):
        self.path, self.key = Path(path), key
        self.arrays: dict[str, np.ndarray] = {}
        _require_writable(self.path)
        self.found = self._find()

    def _find(self) -> Study | None:
        record = self.path / RECORD
        if not record.exists():
            others = sorted(p.name for p in self.path.iterdir() if not p.name.endswith(".partial"))
            if others:
                raise OutputOccupied(
                    f"expected an empty folder or an earlier study in {self.path}; it holds {', '.join(others[:5])}; "
                    "choose another folder"
                )
            return None
        study = load_study(self.path)
        if study.key != self.key:
            raise OutputOccupied(
                f"{self.path} holds another study ({study.model.name} on {study.task.name}, seed {study.seed}, "
                f"{study.status}): its network, task, text, settings or seed differ; choose another folder or delete it"
            )
        self.arrays = load_arrays(self.path)
        return study

    def save(self, study: Study, arrays: dict[str, np.ndarray]) -> None:
        """Write the record, and the arrays first if there are new ones.

        Args:
            study: what is known so far.
            arrays: arrays that are new.
        """
        if arrays:
            self.arrays.update(arrays)
            write_arrays(self.path / ARRAYS, dict(sorted(self.arrays.items())))
        write_text(self.path / RECORD, dump(study) + "\n")


def dump(record: BaseModel) -> str:
    """A record as JSON: floats to nine digits, so that the last bits of a sum do not decide whether files are equal."""
    return json.dumps(_rounded(record.model_dump(mode="json")), indent=1, ensure_ascii=False)


def load_study(path: str | Path) -> Study:
    """Read the `study.json` of a folder.

    Raises:
        CorruptFile: if it is missing or is not a study of this version.
    """
    file = Path(path) / RECORD
    try:
        return Study.model_validate_json(file.read_bytes())
    except OSError as error:
        raise CorruptFile(f"expected a study in {file}; it cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise CorruptFile(
            f"expected a study of schema version 1 in {file}; {error.error_count()} fields do not fit, the first at "
            f"{'.'.join(map(str, first['loc'])) or 'the top'}: {first['msg']}; delete the folder to start again"
        ) from error


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read the `arrays.npz` of a folder; none are there before the first step that makes some.

    Raises:
        CorruptFile: if the file is damaged.
    """
    file = Path(path) / ARRAYS
    return read_arrays(file) if file.exists() else {}


def _require_writable(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / "probe.partial"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OutputOccupied(
            f"expected a folder that can be written at {path}; {error.strerror or error}; choose another with --out"
        ) from error


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
