"""Data whose every label is known."""

from openwork.worlds.corpus import Corpus, Split, split_of, standard_library
from openwork.worlds.python_labels import BRACKETS
from openwork.worlds.python_source import LabelledFolder, LabelledSource, label_file, label_folder, label_text
from openwork.worlds.reading import read_source

__all__ = [
    "BRACKETS",
    "Corpus",
    "LabelledFolder",
    "LabelledSource",
    "Split",
    "label_file",
    "label_folder",
    "label_text",
    "read_source",
    "split_of",
    "standard_library",
]
