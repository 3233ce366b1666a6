"""The network layer: opening, anatomy, certificates, runs, generation."""

from openwork.network.anatomy import Check as Check
from openwork.network.anatomy import SiteInfo as SiteInfo
from openwork.network.generate import Generation as Generation
from openwork.network.load import as_dtype as as_dtype
from openwork.network.network import Network as Network
from openwork.network.opening import open as open
from openwork.network.run import Run as Run
