"""Threads notified together are woken one by one: who of them waits for what is found all the same."""

import pytest

#: Three are notified; the last, who is not woken before the others have left, is joined under the condition's lock.
JOINED = """
enable(on_deadlock="raise")
condition = threading.Condition()  # makes condition
def body():
    with condition:
        condition.wait({timeout})  # waits
threads = [threading.Thread(target=body, name=f"waiter {{i}}", daemon=True) for i in range(3)]
for thread in threads:
    thread.start()
    wait_until(lambda: is_blocked(thread.name, "Condition.wait"), "the waiter waits")
try:
    with condition:  # takes
        condition.notify_all()
        closing()
        threads[2].join()  # joins
except deadlock.DeadlockError as error:
    say("raised", "waiter 2" in str(error))
for thread in threads:
    thread.join()
say("all are through")
"""


@pytest.mark.parametrize("timeout", ["", "3600"])
def test_joined_under_the_lock(app, timeout):
    """A circle: main waits for the end of a waiter, the waiter for the lock that main holds."""
    with app(JOINED.format(timeout=timeout)) as program:
        program.check_in_time()
        program.end()
        assert "raised True\n" in program.out.text
        assert "all are through\n" in program.out.text
        assert "'MainThread' waits for the end of thread 'waiter 2'" in program.err.text
        assert "held by thread 'MainThread'" in program.err.text
