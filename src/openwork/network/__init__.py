"""The network layer: opening, anatomy, certificates, runs, generation."""

from openwork.network.anatomy import Check as Check
from openwork.network.anatomy import SiteInfo as SiteInfo
from openwork.network.generate import Generation as Generation
from openwork.network.load import as_dtype as as_dtype
from openwork.network.measure import Measured as Measured
from openwork.network.measure import measure as measure
from openwork.network.network import Network as Network
from openwork.network.opening import open as open
from openwork.network.replay.behind import Behind as Behind
from openwork.network.run import Run as Run
from openwork.network.sweep import sweep as sweep
