"""Replay: what an edit changes is computed again, and nothing else, for many edits in one forward pass."""
