"""Process pools under faults: each scenario of pool_scenarios.py, in its short form. `make chaos` runs the long one.

RADDLE_STRESS=20 makes it 1,000 kills under load. A failure prints the line that repeats it.
"""

import concurrent.futures

import pytest
from pool_mutants import MUTANTS
from pool_scenarios import SCENARIOS
from pool_table import run, run_once

from tools import SEED, STRESS

pytestmark = [pytest.mark.stress, pytest.mark.fork, pytest.mark.timeout(120 + 20 * STRESS)]

POOLS = ("raddle", "raddle_pool")

#: What one of the two does not have.
NOT_OFFERED = {("memory_limit", "raddle_pool")}


def check(found, name, library, expected):
    assert found["outcome"] == expected, (
        f"{found['outcome']}: {found['detail']}\n"
        f"python tests/faults/pool_runner.py {name} {library} --seed {SEED} --scale {STRESS:g} --errors\n"
        f"{found['errors']}"
    )


@pytest.mark.parametrize("library", POOLS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_what_was_promised_is_kept(name, library):
    found = run(name, library, SEED, STRESS, errors=True)
    check(found, name, library, "n/a" if (name, library) in NOT_OFFERED else "ok")


@pytest.fixture(scope="module")
def mutants():
    """What the runner finds of all of them. They mostly wait for each other's time limits, so all run at once."""

    def judge(name):
        return run_once("come_and_go", f"pool_mutants:{name}", SEED, 1.0, errors=True)

    with concurrent.futures.ThreadPoolExecutor(len(MUTANTS)) as pool:
        return dict(zip(MUTANTS, pool.map(judge, MUTANTS), strict=True))


@pytest.mark.parametrize("name", MUTANTS)
def test_the_runner_finds(mutants, name):
    """A pool that breaks one promise, in a scenario that all pools pass."""
    check(mutants[name], "come_and_go", f"pool_mutants:{name}", MUTANTS[name].expected)
