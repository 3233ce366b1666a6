"""Tiny random models of every architecture that the installed transformers and plain torch offer.

`python bench/tiny_models.py [NAME ...]` prints each type with its size, or the reason why it cannot be built.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import transformers

from tiny_base import CannotBuild, Tiny
from tiny_causal import build_causal, causal_types
from tiny_further import build_single, single_types
from tiny_multimodal import build_together, together_types
from tiny_plain import build_plain, plain_types

__all__ = ["CannotBuild", "Tiny", "build", "causal_types", "further_types", "plain_types"]


def further_types() -> list[str]:
    """Model types of transformers beyond causal language modelling, each `family/type`."""
    return single_types() + together_types()


def build(name: str, seconds: int = 60) -> Tiny:
    """The tiny model of that name; raises `CannotBuild` with the reason, also past the time limit."""
    builders = (
        (causal_types, build_causal),
        (single_types, build_single),
        (together_types, build_together),
        (plain_types, build_plain),
    )
    for names, builder in builders:
        if name in names():
            try:
                with _limit(seconds):
                    return builder(name)
            except CannotBuild:
                raise
            except Exception as error:
                reason = " ".join(str(error).split())[:200]
                raise CannotBuild(f"{type(error).__name__}: {reason}") from error
    raise CannotBuild(f"unknown type {name!r}")


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    """Raise `TimeoutError` after that many seconds, in the main thread; elsewhere there is no limit."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"not built within {seconds} s")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    """Build every type and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="types to build (default: all)")
    names = parser.parse_args().names or causal_types() + further_types() + plain_types()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    built = 0
    for name in names:
        start = time.perf_counter()
        try:
            tiny = build(name)
        except CannotBuild as error:
            print(f"{name:32} not built: {error}", flush=True)
            continue
        built += 1
        millions = sum(p.numel() for p in tiny.module.parameters()) / 1e6
        shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in tiny.example.items())
        spent = time.perf_counter() - start
        print(f"{name:32} ok  {tiny.family:16} {millions:6.2f} M  {spent:4.1f} s  {shapes}", flush=True)
    print(f"{built} of {len(names)} built")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
