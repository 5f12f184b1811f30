"""Runs a file of asyncio's own tests and writes what became of each, as JSON.

`asyncio_suite.py python|raddle OUT test_threads [PATTERN...]`: the tests whose full names match a pattern, or all. Each
comes with its outcome and the modules of the classes of pools whose `submit` it called.
"""

import concurrent.futures
import json
import sys
import unittest


class Outcomes(unittest.TestResult):
    """{test: (outcome, modules of its pools)}."""

    def __init__(self):
        super().__init__()
        self.outcomes, self.pools = {}, set()

    def startTest(self, test):
        super().startTest(test)
        self.pools.clear()
        self.outcome = "passed"

    def stopTest(self, test):
        super().stopTest(test)
        self.outcomes[test.id()] = (self.outcome, sorted(self.pools))

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.outcome = f"skipped: {reason}"

    def _bad(self, test, error):
        self.outcome = self._exc_info_to_string(error, test)

    addError = addFailure = _bad

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self._bad(test, error)


def watch(cls, pools):
    """Notes the module of `cls` for each call of its `submit`."""
    submit = cls.submit

    def watched(self, /, *args, **kwargs):
        pools.add(cls.__module__)
        return submit(self, *args, **kwargs)

    cls.submit = watched


def main(which, out, name, *patterns):
    result = Outcomes()
    watch(concurrent.futures.ThreadPoolExecutor, result.pools)
    if which == "raddle":
        import raddle

        raddle.install()
        watch(concurrent.futures.ThreadPoolExecutor, result.pools)
    loader = unittest.TestLoader()
    loader.testNamePatterns = patterns or None
    loader.loadTestsFromName(f"test.test_asyncio.{name}").run(result)
    with open(out, "w") as file:
        json.dump(result.outcomes, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
