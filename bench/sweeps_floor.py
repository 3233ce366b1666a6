"""The fewest multiply-adds that a sweep needs on a GPT-2-shaped network, and what one full forward pass a cell takes.

Counted are the weights' products with every token whose value an edit can change and from which the position that is
read can still be reached, attention over visible keys, and two rows of the unembedding. Keys and values of unchanged
tokens, and everything before the edit, cost nothing; what norms and activations cost is left out on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one example on a network of this shape.

    Args:
        layers, width, vocabulary: of the network; its MLPs are four times as wide.
        length: tokens of an example; the last one is read.
    """

    layers: int
    width: int
    vocabulary: int
    length: int

    @property
    def full(self) -> int:
        """A full forward pass with all logits."""
        d = self.width
        block = self.length * 12 * d * d + self._attention(range(self.length))
        return self.layers * block + self.length * self.vocabulary * d

    def _attention(self, queries: range) -> int:
        return sum(2 * (query + 1) * self.width for query in queries)

    def stream(self, block: int, position: int) -> int:
        """After the stream that `block` reads was changed at one position; `block` may be the number of blocks."""
        d, last = self.width, self.length - 1
        if block == self.layers:
            return 2 * d if position == last else 0
        tokens = range(position, self.length)
        total = 0
        for number in range(block, self.layers):
            changed = 1 if number == block else len(tokens)  # tokens with other queries, keys and values than before
            if number < self.layers - 1:
                total += 3 * changed * d * d + 9 * len(tokens) * d * d + self._attention(tokens)
            else:
                own_query = number > block or position == last
                total += (2 * changed + own_query + 9) * d * d + self._attention(range(last, last + 1))
        return total + 2 * d

    def head(self, block: int, position: int) -> int:
        """After one head's output was changed at one position."""
        if block == self.layers - 1 and position != self.length - 1:
            return 0
        return 9 * self.width**2 + self.stream(block + 1, position)

    def head_everywhere(self, block: int) -> int:
        """After one head's output was changed at every position."""
        d, last = self.width, self.length - 1
        everywhere = range(self.length)
        if block == self.layers - 1:
            return 9 * d * d + 2 * d
        total = 9 * self.length * d * d
        for _ in range(block + 1, self.layers - 1):
            total += 12 * self.length * d * d + self._attention(everywhere)
        total += (2 * self.length + 10) * d * d + self._attention(range(last, last + 1))
        return total + 2 * d

    def sweep(self, kind: str, heads: int, changed: tuple[int, ...] | None = None) -> tuple[int, int]:
        """All cells of a sweep on one example.

        Args:
            kind: ``residual``, the same with ``, middle block``, ``heads`` or ``heads x positions``.
            heads: heads of a block.
            changed: the tokens at which clean and corrupted inputs differ; all of them unless given. Cells that change
                nothing cost nothing.

        Returns:
            (multiply-adds of the affected cones, those of one full forward pass a cell).
        """
        first = 0 if changed is None else min(changed)
        places = range(self.length)
        blocks = list(range(self.layers))

        def differs(block: int, position: int) -> bool:
            return position >= first if block or changed is None else position in changed

        if kind.startswith("residual"):
            blocks = [self.layers // 2] if "middle" in kind else blocks
            cells = [self.stream(b, p) if differs(b, p) else 0 for b in blocks for p in places]
        elif kind == "heads":
            cells = [self.head_everywhere(b) for b in blocks for _ in range(heads)]
        else:
            cells = [self.head(b, p) if p >= first else 0 for b in blocks for p in places] * heads
        return sum(cells), len(cells) * self.full


if __name__ == "__main__":
    shape = Cost(layers=12, width=768, vocabulary=50257, length=16)
    for kind in ("residual", "heads", "heads x positions"):
        cone, full = shape.sweep(kind, heads=12)
        two, _ = shape.sweep(kind, heads=12, changed=(3, 9))
        print(f"{kind}: {full / cone:.2f} x fewer than full passes; two tokens changed: {full / two:.2f} x")
