"""What every dictionary offers: encode, decode, directions; sites it reads and sites it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from openwork.site import Site


@runtime_checkable
class Dictionary(Protocol):
    """An SAE, transcoder, crosscoder, NMF or PCA: they differ in sites, sparsity and encoder only."""

    reads: Site
    writes: Site

    def encode(self, x: Tensor) -> Tensor:
        """(..., channel) -> (..., latent)."""
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """(..., latent) -> (..., channel)."""
        ...

    @property
    def directions(self) -> Tensor:
        """(latent, channel): what each latent writes."""
        ...
