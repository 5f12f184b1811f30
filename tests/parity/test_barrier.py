"""threading.Barrier on both implementations."""

import threading

import pytest
from object_cases import ObjectCases

from tools import Crew, Stopwatch, assert_matches, outcome, wait_until


class TestBarrier(ObjectCases):
    kind = "Barrier"
    args = (3,)
    methods = ("wait", "reset", "abort")
    patched = "wait"

    @pytest.fixture
    def barrier(self, cls):
        return cls(3)

    @pytest.fixture
    def broken(self, impl):
        return impl.threading.BrokenBarrierError

    def test_error_type(self, broken):
        assert broken is threading.BrokenBarrierError
        assert issubclass(broken, RuntimeError)

    @pytest.mark.parametrize("parties", [1, 2, 2**40, True], ids=repr)
    def test_parties(self, cls, parties):
        assert cls(parties).parties == parties
        assert cls(parties=parties).parties == parties

    @pytest.mark.parametrize("parties", [0, -1, -(2**40)], ids=repr)
    def test_too_few_parties(self, cls, reference, parties):
        """3.13 refuses them; before, any number was taken, which is of no use to anybody."""
        expected = outcome(lambda: reference(parties))
        if expected[0] == "raised":
            assert outcome(lambda: cls(parties)) == expected == ("raised", "ValueError")

    def test_parties_must_be_given(self, cls):
        with pytest.raises(TypeError):
            cls()

    def test_fresh(self, barrier):
        assert (barrier.parties, barrier.n_waiting, barrier.broken) == (3, 0, False)

    @pytest.mark.parametrize("name", ["parties", "n_waiting", "broken"])
    def test_facts_are_read_only(self, barrier, name):
        with pytest.raises(AttributeError):
            setattr(barrier, name, 1)

    def test_all_pass_with_a_number_each(self, barrier):
        with Crew(barrier.wait, 3) as crew:
            pass
        assert sorted(crew.results) == [0, 1, 2]
        assert (barrier.n_waiting, barrier.broken) == (0, False)

    def test_numbers_are_the_order_of_arrival(self, barrier):
        numbers = {}

        def arrive(name):
            numbers[name] = barrier.wait()

        crews = []
        for name in "abc":
            crew = Crew(arrive, args=(name,))
            crew.__enter__()
            crews.append(crew)
            if name != "c":
                crew.wait_until_blocked()
        for crew in crews:
            crew.join()
        assert numbers == {"a": 0, "b": 1, "c": 2}

    def test_nobody_passes_early(self, barrier):
        with Crew(barrier.wait, 2) as crew:
            crew.wait_until_blocked()
            assert crew.results == []
            assert barrier.n_waiting == 2
            assert barrier.wait() == 2
        assert sorted(crew.results) == [0, 1]

    def test_one_party(self, cls):
        barrier = cls(1)
        assert [barrier.wait() for _ in range(3)] == [0, 0, 0]

    def test_lockstep(self, cls):
        barrier = cls(4)
        before, after = [], []

        def work():
            for lap in range(30):
                before.append(1)
                assert len(after) == lap * 4
                barrier.wait()
                after.append(1)
                assert len(before) == (lap + 1) * 4
                barrier.wait()

        with Crew(work, 4):
            pass
        assert (barrier.n_waiting, barrier.broken) == (0, False)

    # Action

    @pytest.mark.parametrize("given", ["position", "keyword"])
    def test_action_runs_once_before_anybody_passes(self, cls, given):
        runs = []
        barrier = (
            cls(3, lambda: runs.append(1)) if given == "position" else cls(3, action=lambda: runs.append(1))
        )

        def work():
            barrier.wait()
            return len(runs)

        with Crew(work, 3) as crew:
            pass
        assert crew.results == [1, 1, 1]

    def test_action_runs_in_the_last_to_arrive(self, cls):
        who = []
        barrier = cls(2, lambda: who.append(threading.current_thread()))
        with Crew(barrier.wait) as crew:
            crew.wait_until_blocked()
            barrier.wait()
        assert who == [threading.current_thread()]

    def test_action_that_raises_breaks_the_barrier(self, cls, broken):
        def fail():
            raise ZeroDivisionError

        barrier = cls(2, fail)

        def work():
            with pytest.raises(broken):
                barrier.wait()

        with Crew(work) as crew:
            crew.wait_until_blocked()
            with pytest.raises(ZeroDivisionError):
                barrier.wait()
        assert barrier.broken is True
        with pytest.raises(broken):
            barrier.wait()

    # Timeouts

    def test_timeout_breaks_it_for_all(self, barrier, broken):
        def work():
            with pytest.raises(broken):
                barrier.wait()

        with Crew(work) as crew:
            crew.wait_until_blocked()
            with Stopwatch() as watch, pytest.raises(broken):
                barrier.wait(0.05)
        assert 0.045 <= watch.seconds < 5
        assert barrier.broken is True

    @pytest.mark.parametrize("timeout", [0, -1, 0.0, -0.5, False], ids=repr)
    def test_no_time_at_all(self, barrier, broken, timeout):
        with pytest.raises(broken):
            barrier.wait(timeout)
        assert barrier.broken is True

    def test_default_timeout(self, cls, broken):
        barrier = cls(2, timeout=0.05)
        with Stopwatch() as watch, pytest.raises(broken):
            barrier.wait()
        assert 0.045 <= watch.seconds < 5

    def test_own_timeout_goes_before_the_default(self, cls, broken):
        barrier = cls(2, None, 1000)
        with pytest.raises(broken):
            barrier.wait(timeout=0.02)

    def test_last_to_arrive_needs_no_time(self, cls):
        assert cls(1).wait(0) == 0
        assert cls(1).wait(-1) == 0

    @pytest.mark.parametrize("timeout", ["1", [], object()], ids=["str", "list", "object"])
    def test_timeout_that_is_no_number(self, barrier, timeout):
        with pytest.raises(TypeError):
            barrier.wait(timeout)

    def test_timeout_too_large(self, barrier):
        with pytest.raises(OverflowError):
            barrier.wait(1e100)

    # Abort and reset

    def test_abort_frees_those_who_wait(self, barrier, broken):
        def work():
            with pytest.raises(broken):
                barrier.wait()

        with Crew(work, 2) as crew:
            crew.wait_until_blocked()
            assert barrier.abort() is None
        assert barrier.broken is True
        with pytest.raises(broken):
            barrier.wait()
        barrier.abort()
        assert barrier.broken is True

    def test_reset_frees_those_who_wait(self, barrier, broken):
        def work():
            with pytest.raises(broken):
                barrier.wait()

        with Crew(work, 2) as crew:
            crew.wait_until_blocked()
            assert barrier.reset() is None
        wait_until(lambda: not barrier.broken, "the barrier is whole")
        with Crew(barrier.wait, 3) as crew:
            pass
        assert sorted(crew.results) == [0, 1, 2]

    def test_reset_of_a_broken_one(self, barrier):
        barrier.abort()
        barrier.reset()
        assert barrier.broken is False
        with Crew(barrier.wait, 3) as crew:
            pass
        assert sorted(crew.results) == [0, 1, 2]

    def test_reset_of_an_empty_one(self, barrier):
        barrier.reset()
        assert (barrier.broken, barrier.n_waiting) == (False, 0)

    # The object

    def test_repr(self, barrier):
        assert_matches(r"^<(raddle\.)?threading\.Barrier at 0x[0-9a-f]+: waiters=0/3>", repr(barrier))
        with Crew(barrier.wait, 2) as crew:
            crew.wait_until_blocked()
            assert_matches(r"^<(raddle\.)?threading\.Barrier at .*: waiters=2/3>", repr(barrier))
            barrier.wait()
        assert_matches(r"^<(raddle\.)?threading\.Barrier at .*: waiters=0/3>", repr(barrier))
        barrier.abort()
        assert_matches(r"^<(raddle\.)?threading\.Barrier at 0x[0-9a-f]+: broken>", repr(barrier))

    def test_wrong_arguments(self, barrier):
        for call in (lambda: barrier.wait(1, 2), lambda: barrier.abort(1), lambda: barrier.reset(1)):
            with pytest.raises(TypeError):
                call()
