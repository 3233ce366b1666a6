"""What is written to disk: whole files or none, hashes, the cache, and activations too large for memory."""

from openwork.store.activations import ActivationReader, ActivationWriter
from openwork.store.cache import CacheEntry, CacheKey, cache_folder, clean_cache, list_cache
from openwork.store.files import (
    read_arrays,
    read_json,
    read_record,
    read_tensors,
    write_arrays,
    write_json,
    write_tensors,
    write_text,
    writing,
)
from openwork.store.hashing import code_version, hash_file, hash_json, hash_state, hash_tree

__all__ = [
    "ActivationReader",
    "ActivationWriter",
    "CacheEntry",
    "CacheKey",
    "cache_folder",
    "clean_cache",
    "code_version",
    "hash_file",
    "hash_json",
    "hash_state",
    "hash_tree",
    "list_cache",
    "read_arrays",
    "read_json",
    "read_record",
    "read_tensors",
    "write_arrays",
    "write_json",
    "write_tensors",
    "write_text",
    "writing",
]
