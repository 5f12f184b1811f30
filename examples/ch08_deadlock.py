"""Chapter 8: a deadlock, and three remedies.

Two threads take the same two locks in opposite order, and each waits for the other for ever. Shows what
helps: one order for all; a timeout; and raddle's detection, which breaks the circle with a DeadlockError and
says who holds what.

Run it with:  python examples/ch08_deadlock.py
"""

import io

from raddle import deadlock
from raddle.deadlock import DeadlockError
from raddle.threading import Barrier, RLock, Thread, current_thread

knife, fork = RLock(name="knife"), RLock(name="fork")


def at_table(ann, ben):
    """Runs both functions at the same time."""
    guests = [Thread(target=ann, name="Ann"), Thread(target=ben, name="Ben")]
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.join()


# Remedy 1: everybody takes the locks in the same order, here by name.

meals = []


def eat_in_order(first, second):
    for lock in sorted((first, second), key=lambda lock: lock.name):
        lock.acquire()
    meals.append(current_thread().name)
    for lock in (first, second):
        lock.release()


at_table(lambda: eat_in_order(knife, fork), lambda: eat_in_order(fork, knife))
print("in one order:", sorted(meals), "have eaten")


# Remedy 2: a timeout; who cannot get the second lock puts the first one back.

each_has_one = Barrier(2)
each_has_tried = Barrier(2)
gave_up = []


def eat_or_give_up(first, second):
    with first:
        each_has_one.wait()
        if second.acquire(timeout=0.05):
            second.release()
        else:
            gave_up.append(current_thread().name)
        each_has_tried.wait()


at_table(lambda: eat_or_give_up(knife, fork), lambda: eat_or_give_up(fork, knife))
print("with a timeout:", sorted(gave_up), "gave up and nobody hangs")


# Remedy 3: detection. The report goes to a string here; without `report` it goes to standard error.

meals.clear()
report = io.StringIO()
deadlock.enable(on_deadlock="raise", report=report)
each_has_one.reset()
refused = []


def eat(first, second):
    try:
        with first:
            each_has_one.wait()
            with second:
                meals.append(current_thread().name)
    except DeadlockError as error:
        refused.append(error.report)


at_table(lambda: eat(knife, fork), lambda: eat(fork, knife))
deadlock.disable()

found = refused[0]
print("with detection:", len(refused), "thread got a DeadlockError,", len(meals), "has eaten")
print("the report is proven:", found.proven)
for party in sorted(found.parties, key=lambda party: party.thread_name):
    held = ", ".join(hold.object.name for hold in party.holds)
    print(f"  {party.thread_name} held the {held} and waited for the {party.waits_for.name}")
print("it says where, and what to do:", "ch08_deadlock.py" in str(found), bool(found.advice))
