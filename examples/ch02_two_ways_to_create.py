"""Chapter 2: the two ways to make a thread.

Shows a thread that runs a function it was given, and one that is an instance of a class with a run() of its
own. The second way suits threads that keep a result or a state.

Run it with:  python examples/ch02_two_ways_to_create.py
"""

from raddle.threading import Thread, current_thread


def greet(*people, greeting="Hello"):
    for person in people:
        print(f"{current_thread().name}: {greeting}, {person}")


greeter = Thread(target=greet, args=("Ann", "Ben"), kwargs={"greeting": "Good morning"}, name="greeter")
greeter.start()
greeter.join()


class Summer(Thread):
    """Adds numbers up; ask for `total` after join()."""

    def __init__(self, numbers):
        super().__init__(name="summer")
        self.numbers = numbers
        self.total = None

    def run(self):
        self.total = sum(self.numbers)


summer = Summer(range(101))
summer.start()
summer.join()
print(f"{summer.name}: {summer.total}")

# run() is an ordinary method: called directly, it runs in the calling thread, and no thread is started.
direct = Summer(range(11))
direct.run()
print(f"direct call: {direct.total}, ran in {current_thread().name}, started: {direct.ident is not None}")
