"""Fixtures of the tests of hang detection."""

import hangs
import pytest


@pytest.fixture
def app(tmp_path):
    """Makes programs: `with app(source, options) as program: ...`; the source goes behind `hangs.PRELUDE`."""

    def make(source, options=None, **how):
        return hangs.App(tmp_path, hangs.PRELUDE + source, options, **how)

    return make
