"""Times openwork: the user's own module is the bare model, before and after."""

from __future__ import annotations

import openwork as ow
from peers.case import Case
from peers.serve import Mode, bare, serve


def modes(case: Case) -> dict[str, Mode]:
    """The bare model twice (its ratio to itself is the noise floor) and three amounts of keeping."""
    net = ow.open(case.module, example={"input_ids": case.ids})
    streams = [f"blocks.{block}.resid_post" for block in range(case.shape.layers)]
    every = [name for name, site in net.sites.items() if site.status == "certified" and not name.startswith("module:")]

    def keeping(names: list[str]) -> Mode:
        return Mode(
            lambda: net.run(case.ids, keep=names),
            lambda run: run.logits,
            lambda run: {name: run[name] for name in names},
        )

    return {
        "bare": bare(case.module, case.ids),
        "bare again": bare(case.module, case.ids),
        "no keep": keeping([]),
        "residual streams": keeping(streams),
        "every site": keeping(every),
    }


if __name__ == "__main__":
    serve(modes, ["openwork", "torch", "transformers"])
