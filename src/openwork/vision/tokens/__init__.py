"""Patch tokens and the class token of vision transformers."""
