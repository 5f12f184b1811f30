"""Profiles of hypothesis: `ci` always draws the same examples, `random` by RADDLE_SEED, `soak` many more."""

import os

import hypothesis

import tools

COMMON = {"deadline": None, "print_blob": True, "database": None}
COMMON["suppress_health_check"] = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large]

hypothesis.settings.register_profile("ci", derandomize=True, max_examples=60, **COMMON)
hypothesis.settings.register_profile("random", max_examples=100, **COMMON)
hypothesis.settings.register_profile("soak", max_examples=3000, stateful_step_count=100, **COMMON)
PROFILE = os.environ.get("RADDLE_HYPOTHESIS_PROFILE", "ci")
hypothesis.settings.load_profile(PROFILE)

# The same effect as the option --hypothesis-seed; the ci profile does not look at it.
hypothesis.core.global_force_seed = tools.SEED


def pytest_report_header(config):
    return f"RADDLE_HYPOTHESIS_PROFILE={PROFILE}"
