"""Causal methods: what happens to a behaviour when a part of the network is changed."""
