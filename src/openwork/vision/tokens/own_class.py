"""What an edit does to the class of an image, beyond what it does to classes that other images have.

An edit that makes a network surer, or less sure, of any answer changes the log-probability of every class, also where
the network knows nothing of the classes. Only what happens to the image's own class more than to the class of another
image says that something of the class was there.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def own_class(
    values: Float[np.ndarray, "image class"], labels: Int[np.ndarray, " image"]
) -> Float[np.ndarray, " image"]:
    """Values of each image's own class less their mean over the classes of all images, as often as these come up.

    Args:
        values: such as log-probability lost.
        labels: the class of each image.

    Returns:
        a mean of zero is due if the labels were drawn anew.
    """
    share = np.bincount(labels, minlength=values.shape[1]) / len(labels)
    return values[np.arange(len(labels)), labels] - values @ share
