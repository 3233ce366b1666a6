"""Python source files as text, the way Python itself reads them."""

from __future__ import annotations

import io
import tokenize
from pathlib import Path

from openwork.errors import BadInput


def read_source(path: Path) -> str:
    """Read a Python file: byte-order mark, declared encoding and line ends handled as Python does.

    Args:
        path: a file.

    Returns:
        The text without byte-order mark, with "\\n" line ends.

    Raises:
        BadInput: if the file cannot be read or is not valid in the encoding that it declares.
    """
    try:
        return decode_source(path.read_bytes())
    except OSError as error:
        raise BadInput(f"expected a readable Python file at {path}: {error.strerror}") from error
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise BadInput(f"expected {path} in the encoding that it declares (utf-8 if none): {error}") from error


def decode_source(data: bytes) -> str:
    """Decode the bytes of a Python file.

    Args:
        data: the whole file.

    Returns:
        The text without byte-order mark, with "\\n" line ends.

    Raises:
        SyntaxError: if the declared encoding is unknown or contradicts the byte-order mark.
        UnicodeDecodeError: if the bytes are not valid in it.
    """
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    text = data.decode(encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n")
