"""What is written to disk: whole files or none, hashes, the cache, and activations too large for memory.

`openwork.store.activations` is not imported here, so that listing a cache does not load torch.
"""

from openwork.store.cache import CacheEntry, CacheKey, cache_folder, clean_cache, list_cache
from openwork.store.files import read_arrays, read_json, write_arrays, write_json, write_tensors, write_text, writing
from openwork.store.hashing import code_version, hash_file, hash_json, hash_state, hash_tree

__all__ = [
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
    "write_arrays",
    "write_json",
    "write_tensors",
    "write_text",
    "writing",
]
