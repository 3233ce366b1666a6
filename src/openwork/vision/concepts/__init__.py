"""Directions that several units share, found and tested as concepts."""
