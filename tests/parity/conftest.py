"""Fixtures of the parity tests of multiprocessing."""

import pytest


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def ctx(impl, request):
    """A context of each start method."""
    return impl.multiprocessing.get_context(request.param)


@pytest.fixture
def fork(impl):
    """The context whose children are forked."""
    return impl.multiprocessing.get_context("fork")
