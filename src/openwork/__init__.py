"""openwork opens neural networks: find a mechanism, prove it, change it."""
