"""What reads and steers networks, as `openwork bench reading` asks it."""

from __future__ import annotations

from openwork.boards import attributing, changing, judging, lensing, likening, probing, steering, weighing

CONTENDERS = {
    name: contender
    for part in (lensing, weighing, attributing, judging, probing, likening, steering, changing)
    for name, contender in part.LINES.items()
}
"""Name -> method."""
