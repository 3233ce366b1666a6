"""`openwork open MODEL`: the anatomy of a network and the certificate of every site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from openwork.cli.command import Common, command
from openwork.cli.loading import open_network
from openwork.cli.options import TrustRemoteCode
from openwork.cli.output import show, show_json

if TYPE_CHECKING:
    from openwork.network import Network


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "open")
    def open_(
        model: Annotated[str, typer.Argument(help="An embedded name such as py-4l, a local folder, or a hub id.")],
        trust_remote_code: TrustRemoteCode = False,
        *,
        common: Common,
    ) -> None:
        """Print every site of a network: its shape, what was checked, and what was refused and why."""
        net = open_network(model, common, trust_remote_code)
        if common.json:
            show_json(record(net))
        else:
            show(net.__rich__())


def record(net: Network) -> dict[str, Any]:
    """The anatomy and the certificates as JSON."""
    sites = [
        {
            "site": name,
            "axes": dict(zip(site.axes, site.shape, strict=True)),
            "status": site.status,
            "checks": [
                {"name": check.name, "residual": check.residual, "tolerance": check.tolerance} for check in site.checks
            ],
        }
        for name, site in net.sites.items()
    ]
    return {
        "model": net.name,
        "blocks": net.n_blocks,
        "causal": net.causal,
        "device": str(net.device),
        "parameters": sum(parameter.numel() for parameter in net.module.parameters()),
        "sites": sites,
        "refused": net.refused,
    }
