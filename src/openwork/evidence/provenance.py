"""What ran, on what, with what."""

from __future__ import annotations

import hashlib
import platform
import shlex
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from openwork.finding import Provenance


@cache
def code_hash() -> str:
    """SHA-256 over the names and contents of all installed openwork source files."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def record_provenance(
    model: str,
    model_hash: str,
    data_hash: str,
    device: str | torch.device,
    dtype: str | torch.dtype,
    command: str | None = None,
) -> Provenance:
    """Fill in what the running process knows of itself.

    Args:
        model: name or path.
        model_hash: of the weights.
        data_hash: of the examples.
        device: where the model computed; the name of a GPU is added.
        dtype: of the weights.
        command: to repeat it; the command line of this process when None.
    """
    device = torch.device(device)
    name = f" {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return Provenance(
        model=model,
        model_hash=model_hash,
        data_hash=data_hash,
        code_hash=code_hash(),
        openwork=metadata.version("openwork"),
        python=platform.python_version(),
        torch=torch.__version__,
        device=f"{device}{name}",
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        command=_command_line() if command is None else command,
    )


def _command_line() -> str:
    """How this process was started, without the folder that the program happens to be installed in."""
    program = Path(sys.argv[0])
    start = ["python", sys.argv[0]] if program.suffix == ".py" else [program.name]
    return shlex.join([*start, *sys.argv[1:]])
