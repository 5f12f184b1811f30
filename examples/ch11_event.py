"""Chapter 11: events: one thread tells the others that something has happened.

Shows runners that wait for a start signal, an event that is cleared and set again like a gate, and a wait
with a timeout, which says whether the event came.

Run it with:  python examples/ch11_event.py
"""

from raddle.threading import Barrier, Event, Thread

started = Event(name="start signal")
lined_up = Barrier(4)
order = []


def run(name):
    lined_up.wait()
    started.wait()
    order.append(name)


runners = [Thread(target=run, args=(name,)) for name in ("Ann", "Ben", "Cleo")]
for runner in runners:
    runner.start()
lined_up.wait()
print("before the signal:", len(order), "runners have left")
started.set()
for runner in runners:
    runner.join()
print("after the signal:", sorted(order), "have left")

# An event stays set: who comes later does not wait.
print("set:", started.is_set(), "- a late wait returns at once:", started.wait())
started.clear()
print("cleared: wait(timeout=0.02) returns", started.wait(timeout=0.02))

# Two events make two threads take turns.
ping, pong = Event(), Event()
words = []


def play(mine, theirs, word):
    for _ in range(3):
        mine.wait()
        mine.clear()
        words.append(word)
        theirs.set()


players = [Thread(target=play, args=(ping, pong, "ping")), Thread(target=play, args=(pong, ping, "pong"))]
for player in players:
    player.start()
ping.set()
for player in players:
    player.join()
print(*words)
