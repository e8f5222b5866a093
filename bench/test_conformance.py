"""Whether norms, regularizers and networks are what they say they are; nothing is trained."""

import pytest


@pytest.mark.conformance()
def test_norm(norm, check):
    assert not check("norm", norm).broken


@pytest.mark.conformance()
def test_regularizer(regularizer, check):
    assert not check("regularizer", regularizer).broken


@pytest.mark.conformance()
def test_network(network, check):
    assert not check("network", network).broken
