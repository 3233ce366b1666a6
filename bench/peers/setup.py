"""Make one environment a peer: ``python bench/peers/setup.py [PEER …]``.

Peers have clashing requirements, so each has its own ``requirements.txt`` and its own ``.venv`` beside it.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
PEERS = sorted(path.parent.name for path in HERE.glob("*/requirements.txt"))


def interpreter(peer: str) -> Path:
    """The interpreter of a peer's environment."""
    return HERE / peer / ".venv" / "bin" / "python"


def make(peer: str) -> None:
    """Create the environment of one peer, or bring it up to its requirements."""
    if not interpreter(peer).exists():
        venv.create(HERE / peer / ".venv", with_pip=True)
    requirements = HERE / peer / "requirements.txt"
    subprocess.run([interpreter(peer), "-m", "pip", "install", "--quiet", "-r", requirements], check=True)


if __name__ == "__main__":
    chosen = sys.argv[1:] or PEERS
    if unknown := set(chosen) - set(PEERS):
        sys.exit(f"expected some of {', '.join(PEERS)}; got {', '.join(sorted(unknown))}")
    for peer in chosen:
        make(peer)
        print(f"{peer}: {interpreter(peer)}", file=sys.stderr)
