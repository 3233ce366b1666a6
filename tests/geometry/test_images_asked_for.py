"""What commands of geometry read where networks see: one corpus at the size of each, its classes as labels."""

from __future__ import annotations

import pytest

from openwork.cli.command import Common
from openwork.cli.geometry import Observing, labelled
from openwork.errors import BadInput
from openwork.geometry.views import Views

from .made import gpt2
from .seers import SIDE, pictures, seer


def test_networks_of_two_sizes_get_the_same_scenes_at_both() -> None:
    found = Observing(n=8).material("seer", [seer(scale=2), seer(scale=4)], Common())
    assert isinstance(found, Views)
    assert (len(found), found.size(0), found.size(1)) == (8, (2 * SIDE, 2 * SIDE), (4 * SIDE, 4 * SIDE))
    one, two = (corpus.classes(range(8)).tolist() for corpus in found.corpora)  # pyright: ignore[reportAttributeAccessIssue]
    assert one == two


def test_images_are_labelled_by_their_class() -> None:
    found = Observing(n=8).material("seer", [seer(scale=2)], Common())
    labels = labelled(seer(scale=2), found, None)
    assert len(labels) == 8
    assert all(isinstance(label, str) for label in labels)


def test_labels_of_tokens_are_refused_for_images() -> None:
    with pytest.raises(BadInput, match="label class"):
        labelled(seer(), Views((pictures(8),)), "kind")


def test_images_without_classes_have_no_labels() -> None:
    with pytest.raises(BadInput, match="what class"):
        labelled(seer(), Views((pictures(8),)), "class")


def test_images_and_a_task_are_not_both_read() -> None:
    with pytest.raises(BadInput, match="not both"):
        Observing(pictures="shapes", task="ioi").material("seer", [seer()], Common())


def test_images_are_refused_for_networks_that_read_tokens() -> None:
    with pytest.raises(BadInput, match="reads images"):
        Observing(pictures="shapes").material("small", [gpt2()], Common())
