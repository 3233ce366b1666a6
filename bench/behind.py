"""CPU seconds of runs that differ only from one site on: whole ones, and with what comes before computed once.

    python bench/behind.py --model shapes-cnn --images 64 --units 16

At each site the same single units are set to zero, one per run, by `Network.run` and by `Behind` (whose making counts),
in turns. The logits must be the same, bit for bit. The floor is the share of a whole run's floating-point operations
that the run from the site on still has to do (`torch.utils.flop_counter`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import openwork as ow
from openwork.network import Behind
from openwork.worlds.shapes import Shapes

SITES = {
    "shapes-cnn": ["module:stem.out", "module:stages.0.out", "module:stages.1.out", "module:stages.2.out"],
    "shapes-vit": [f"blocks.{block}.resid_post" for block in (0, 1, 2)],
}


def timed(do: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and what it returns."""
    start = time.process_time()
    out = do()
    return time.process_time() - start, out


def operations(do: Callable[[], Any]) -> int:
    """Floating-point operations of a call."""
    with FlopCounterMode(display=False) as counter:
        do()
    return counter.get_total_flops()


def compare(net: ow.Network, images: Tensor, site: str, units: int, rounds: int) -> str:
    """One line: the ratio of seconds, and the share of the operations that is left."""
    edits = [ow.Ablate(f"{site}[{unit}]") for unit in range(units)]

    def whole() -> Tensor:
        return torch.stack([net.run(images, edits=edit).logits for edit in edits])

    def later() -> Tensor:
        behind = Behind(net, images, site)
        return torch.stack([behind.run(edits=edit).logits for edit in edits])

    seconds: dict[Callable[[], Tensor], list[float]] = {whole: [], later: []}
    answers: dict[Callable[[], Tensor], Tensor] = {}
    for _ in tqdm(range(rounds), desc=site, leave=False):
        for do, taken in seconds.items():
            spent, answers[do] = timed(do)
            taken.append(spent)
    if not torch.equal(answers[whole], answers[later]):
        raise SystemExit(f"expected the same logits at {site}; they differ")
    ratios = [a / b for a, b in zip(seconds[whole], seconds[later], strict=True)]
    behind = Behind(net, images, site)
    left = operations(lambda: behind.run(edits=edits[0])) / operations(lambda: net.run(images, edits=edits[0]))
    return (
        f"{site:28} {median(seconds[whole]):8.2f} s {median(seconds[later]):8.2f} s "
        f"{median(ratios):6.1f} times [{min(ratios):.1f}, {max(ratios):.1f}]; {left:.1%} of the operations left"
    )


def main() -> None:
    """Compare every site of one network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(SITES), default="shapes-cnn")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--units", type=int, default=16, help="runs at each site")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    net = ow.open(asked.model)
    assert net.images is not None
    images = net.images.encode(Shapes(split="find", count=asked.images).pixels(range(asked.images)).float() / 255)
    print(
        f"{asked.model}, {asked.images} images, {asked.units} runs a site: median CPU seconds of {asked.rounds} rounds"
    )
    for site in SITES[asked.model]:
        print(compare(net, images, site, asked.units, asked.rounds))


if __name__ == "__main__":
    main()
