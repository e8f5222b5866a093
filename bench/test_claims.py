"""What others have said of these norms: what each claim needs, and what comes of it."""

import pytest


@pytest.mark.claims()
def test_claimed_case(case, run_case):
    assert run_case(case).test_accuracy > case.target


@pytest.mark.claims()
def test_claim(claim, judge):
    # a refuted claim is a result; only a verdict that is not the one on record is a failure
    assert judge(claim).verdict in claim.expected
