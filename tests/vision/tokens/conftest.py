"""The transformer wired by hand, of which tests of tokens ask."""

import pytest

import openwork as ow
from openwork.zoo.gazing import FORMAT, gazing


@pytest.fixture(scope="package")
def known():
    return gazing(0)


@pytest.fixture(scope="package")
def net(known):
    return ow.open(known.module, name="gaze", images=FORMAT)
