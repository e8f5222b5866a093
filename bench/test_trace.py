"""Smoke: each of fifty steps of training against an independent one in float64."""

import pytest


@pytest.mark.traces("digits")
def test_trace(traced, trace):
    assert not trace(traced).broken
