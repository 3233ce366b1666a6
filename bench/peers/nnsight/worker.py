"""Times nnsight: a trace over a twin of the network, on the same weight tensors."""

from __future__ import annotations

import nnsight

from peers.case import Case
from peers.serve import Mode, bare, serve


def modes(case: Case) -> dict[str, Mode]:
    """A trace that saves only the logits, one that saves the residual streams, and a cache of every module's output."""
    net = nnsight.NNsight(case.twin())
    blocks = list(net.transformer.h)

    def trace_only():
        with net.trace(input_ids=case.ids):
            output = net.output.save()
        return output, {}

    def residual_streams():
        with net.trace(input_ids=case.ids):
            kept = nnsight.save([block.output for block in blocks])
            output = net.output.save()
        return output, kept

    def every_module():
        with net.trace(input_ids=case.ids) as tracer:
            cache = tracer.cache()
            output = net.output.save()
        return output, cache

    def tensors(cache):
        found = {path: cache[path].output for path in cache.keys()}  # noqa: SIM118 (a cache cannot be iterated)
        return {path: value for path, value in found.items() if hasattr(value, "untyped_storage")}

    return {
        "bare": bare(case.module, case.ids),
        "no keep": Mode(trace_only, lambda result: result[0].logits),
        "residual streams": Mode(
            residual_streams,
            lambda result: result[0].logits,
            lambda result: {f"block {number}": value for number, value in enumerate(result[1])},
        ),
        "every site": Mode(every_module, lambda result: result[0].logits, lambda result: tensors(result[1])),
    }


if __name__ == "__main__":
    serve(modes, ["nnsight", "torch", "transformers"])
