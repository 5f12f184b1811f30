"""Chapter 4: waiting for a thread to end.

Shows that join() returns when the thread is dead, that join(timeout) may return before that (is_alive()
tells which), and what cannot be joined.

Run it with:  python examples/ch04_join.py
"""

from raddle.threading import Event, Thread, current_thread

steps = []


def cook():
    steps.append("soup is ready")


cooking = Thread(target=cook)
cooking.start()
cooking.join()
steps.append("soup is served")
print(steps)

oven = Event()
baking = Thread(target=oven.wait, name="baking")
baking.start()
baking.join(timeout=0.05)
print("after join(timeout=0.05) still baking:", baking.is_alive())
oven.set()
baking.join()
print("after join() still baking:", baking.is_alive())

for what, thread in (("itself", current_thread()), ("a thread not started", Thread(target=cook))):
    try:
        thread.join()
    except RuntimeError as error:
        print(f"a thread cannot join {what}: {error}")
