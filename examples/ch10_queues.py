"""Chapter 10: queues hand work from thread to thread.

Shows the three orders, a bounded queue between producers and consumers with join() and shutdown(), the
exceptions of the calls that do not wait, and raddle's put_many() and get_many().

Run it with:  python examples/ch10_queues.py
"""

from raddle.queue import Empty, Full, LifoQueue, PriorityQueue, Queue, ShutDown
from raddle.threading import Lock, Thread

for kind in (Queue, LifoQueue, PriorityQueue):
    queue = kind()
    for number in (3, 1, 2):
        queue.put(number)
    print(f"{kind.__name__:13}", [queue.get() for _ in range(3)])


# Producers and consumers. Two places only: the producers wait while the consumers are behind.

pages = Queue(maxsize=2)
read = []
lock = Lock()


def write_pages(author):
    for number in range(1, 6):
        pages.put(f"{author}, page {number}")


def read_pages():
    while True:
        try:
            page = pages.get()
        except ShutDown:
            return
        with lock:
            read.append(page)
        pages.task_done()


writers = [Thread(target=write_pages, args=(author,)) for author in ("Ann", "Ben", "Cleo")]
readers = [Thread(target=read_pages) for _ in range(2)]
for thread in writers + readers:
    thread.start()
for thread in writers:
    thread.join()
pages.join()  # every page that was put has been read
pages.shutdown()  # no more will come: the readers' get() raises ShutDown
for thread in readers:
    thread.join()
print("pages read:", len(read), "- each once:", len(set(read)) == 15)
print(
    "Ann's in order:",
    [page for page in read if page.startswith("Ann")] == [f"Ann, page {n}" for n in range(1, 6)],
)


# Not waiting, and waiting for a limited time.

small = Queue(maxsize=1)
small.put("only")
for attempt in (lambda: small.put_nowait("more"), lambda: small.put("more", timeout=0.02)):
    try:
        attempt()
    except Full:
        print("full")
small.get()
try:
    small.get(timeout=0.02)
except Empty:
    print("empty")


# Many at a time: one call, one wait.

batch = Queue()
print("put:", batch.put_many(range(5)), "got:", batch.get_many(3), "then:", batch.get_many())
