"""Chapter 13: data of one's own in every thread.

Shows that each thread finds its own values under the same name, that a subclass of local prepares them at a
thread's first use, and that one thread's values are out of the others' sight.

Run it with:  python examples/ch13_local.py
"""

from raddle.threading import Barrier, Thread, local

context = local()
all_set = Barrier(3)
seen = []


def handle(user):
    context.user = user
    all_set.wait()  # by now all three have set it
    log("done")


def log(text):
    seen.append(f"{context.user}: {text}")


threads = [Thread(target=handle, args=(user,)) for user in ("Ann", "Ben", "Cleo")]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sorted(seen))
print("the main thread has a user:", hasattr(context, "user"))


class Counter(local):
    """__init__ runs once in every thread that uses the object, with the arguments it was made with."""

    def __init__(self, start):
        self.value = start

    def up(self):
        self.value += 1


counter = Counter(10)
results = []


def count(times):
    for _ in range(times):
        counter.up()
    results.append(counter.value)


threads = [Thread(target=count, args=(times,)) for times in (1, 2, 3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("counted:", sorted(results), "- in the main thread:", counter.value)
