"""Opening the network that a command names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from openwork.cli.command import Common
from openwork.errors import BadInput

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.zoo import Member


def open_network(model: str | Member, common: Common, trust_remote_code: bool = False) -> Network:
    """Open an embedded name, a member of the zoo, a folder or a hub id on the device and in the precision asked for.

    Raises:
        BadInput: if there is no such device.
    """
    if common.quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import torch

    try:
        torch.empty(0, device=common.device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise BadInput(f"expected a device of this machine such as cpu; got {common.device!r} ({first})") from error
    from openwork.zoo.opening import open

    return open(model, device=common.device, dtype=common.dtype.value, trust_remote_code=trust_remote_code)
