"""Chapter 6: sleeping.

Shows that a sleeping thread lets the others run: three naps taken at the same time last as long as one. And
it shows what to use instead of sleep() when somebody may want to wake the sleeper: the timeout of an Event.

Run it with:  python examples/ch06_sleep.py
"""

import time

from raddle.threading import Event, Thread

NAP = 0.5


def nap():
    time.sleep(NAP)


start = time.monotonic()
sleepers = [Thread(target=nap) for _ in range(3)]
for sleeper in sleepers:
    sleeper.start()
for sleeper in sleepers:
    sleeper.join()
took = time.monotonic() - start
print("no nap was cut short:", took >= NAP)
print("three naps took less than two in a row:", took < 2 * NAP)

alarm = Event()
woken = []
patient = Thread(target=lambda: woken.append(alarm.wait(timeout=60)))
start = time.monotonic()
patient.start()
alarm.set()
patient.join()
print("woken by the alarm:", woken[0], "- long before the timeout:", time.monotonic() - start < 30)
