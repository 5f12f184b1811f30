"""Every queue kind and bound under random producers and consumers: each item arrives exactly once."""

import contextlib
import threading
import time

import pytest

from tools import DEADLINE, Crew, rng_for, scaled, wait_until

pytestmark = [pytest.mark.stress, pytest.mark.timeout(600)]

KINDS = ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"]
END = 10**9


def make(impl, kind, bound=0):
    cls = getattr(impl.queue, kind)
    return cls() if kind == "SimpleQueue" else cls(bound)


def put_somehow(impl, queue, item, rng):
    """Puts in one of the ways there are; those that can fail are repeated until they do not."""
    way = rng.randrange(3)
    if way == 0:
        return queue.put(item)
    while True:
        try:
            return queue.put_nowait(item) if way == 1 else queue.put(item, timeout=rng.random() * 0.002)
        except impl.queue.Full:
            time.sleep(0)


def get_somehow(impl, queue, rng):
    way = rng.randrange(3)
    if way == 0:
        return queue.get()
    while True:
        try:
            return queue.get_nowait() if way == 1 else queue.get(timeout=rng.random() * 0.002)
        except impl.queue.Empty:
            time.sleep(0)


def run_exactly_once(impl, queue, producers, consumers, count, label, fifo=False):
    received = [[] for _ in range(consumers)]

    def produce(number):
        rng = rng_for(f"{label} producer {number}")
        for i in range(count):
            put_somehow(impl, queue, number * count + i, rng)

    def consume(number):
        rng = rng_for(f"{label} consumer {number}")
        while (item := get_somehow(impl, queue, rng)) != END:
            received[number].append(item)

    eaters = [Crew(consume, args=(i,)) for i in range(consumers)]
    makers = [Crew(produce, args=(i,)) for i in range(producers)]
    for crew in eaters + makers:
        crew.__enter__()
    for crew in makers:
        crew.__exit__(None, None, None)
    wait_until(queue.empty, "the consumers have taken all")
    for _ in eaters:
        queue.put(END)
    for crew in eaters:
        crew.__exit__(None, None, None)
    assert sorted(item for items in received for item in items) == list(range(producers * count))
    assert queue.qsize() == 0
    if fifo:
        for items in received:
            for number in range(producers):
                mine = [item for item in items if item // count == number]
                assert mine == sorted(mine)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (4, 4)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("bound", [0, 1, 2, 16])
@pytest.mark.parametrize("kind", KINDS[:3])
def test_exactly_once(impl, kind, bound, shape):
    producers, consumers = shape
    queue = make(impl, kind, bound)
    label = f"{kind} {bound} {shape}"
    run_exactly_once(impl, queue, producers, consumers, scaled(240) // producers, label, fifo=kind == "Queue")
    assert queue.unfinished_tasks == scaled(240) // producers * producers + consumers


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (4, 4)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_exactly_once_simple(impl, shape):
    producers, consumers = shape
    queue = make(impl, "SimpleQueue")
    run_exactly_once(
        impl, queue, producers, consumers, scaled(800) // producers, f"simple {shape}", fifo=True
    )


@pytest.mark.parametrize("kind", KINDS[:3])
def test_exactly_once_in_a_subclass(impl, kind):
    class Derived(getattr(impl.queue, kind)):
        def _put(self, item):
            super()._put(item)
            time.sleep(0)

        def _get(self):
            time.sleep(0)
            return super()._get()

    run_exactly_once(impl, Derived(3), 3, 3, scaled(60), f"derived {kind}", fifo=kind == "Queue")


@pytest.mark.parametrize("kind", KINDS)
def test_timeouts_racing_with_puts(impl, kind, rng):
    """Getters that give up about when an item comes: it is with a getter or still there, never lost."""
    queue = make(impl, kind)
    pause = 0.0005
    got, stop = [], threading.Event()

    def take(seed):
        mine = rng_for(f"{kind} taker {seed}")
        while not stop.is_set():
            with contextlib.suppress(impl.queue.Empty):
                got.append(queue.get(timeout=mine.random() * 2 * pause))

    crews = [Crew(take, args=(i,)) for i in range(3)]
    for crew in crews:
        crew.__enter__()
    total = scaled(400)
    for i in range(total):
        queue.put(i)
        time.sleep(rng.random() * 2 * pause)
    wait_until(lambda: len(got) == total, "all have arrived")
    stop.set()
    if not impl.is_raddle:
        # _queue.SimpleQueue.get waits for ever when it is woken at its deadline and finds the item taken.
        for _ in crews:
            queue.put(END)
    for crew in crews:
        crew.__exit__(None, None, None)
    assert sorted(item for item in got if item != END) == list(range(total))
    assert queue.qsize() + got.count(END) == (0 if impl.is_raddle else len(crews))


@pytest.mark.parametrize("kind", KINDS[:3])
def test_timeouts_racing_with_gets(impl, kind, rng):
    """Putters that give up about when room comes: what a put has acknowledged is there, nothing else is."""
    queue = make(impl, kind, 1)
    accepted, stop = [], threading.Event()

    def give(base):
        mine = rng_for(f"{kind} giver {base}")
        number = base
        while not stop.is_set():
            try:
                queue.put(number, timeout=mine.random() * 0.001)
                accepted.append(number)
            except impl.queue.Full:
                pass
            number += 1

    crews = [Crew(give, args=(base,)) for base in (10**6, 2 * 10**6, 3 * 10**6)]
    for crew in crews:
        crew.__enter__()
    got = []
    for _ in range(scaled(400)):
        got.append(queue.get(timeout=DEADLINE))
        time.sleep(rng.random() * 0.001)
    stop.set()
    for crew in crews:
        crew.__exit__(None, None, None)
    got += [queue.get_nowait() for _ in range(queue.qsize())]
    assert sorted(got) == sorted(accepted)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_join_and_task_done(impl, kind, rng):
    queue = make(impl, kind, 4)
    done = []

    def work():
        while True:
            item = queue.get()
            done.append(item)
            queue.task_done()
            if item == END:
                return

    with Crew(work, 3):
        for lap in range(scaled(30)):
            size = rng.randrange(1, 20)
            for i in range(size):
                queue.put(lap * 100 + i)
            queue.join()
            assert queue.unfinished_tasks == 0
            assert len(done) >= size
        for _ in range(3):
            queue.put(END)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_shutdown_in_the_middle(raddle, kind, rng):
    """What put acknowledged before the end is taken by somebody or still there; all are told of the end."""
    for lap in range(scaled(25)):
        queue = make(raddle, kind, 3)
        accepted, got = [], []

        def give(base, queue=queue, accepted=accepted):
            number = base
            try:
                while True:
                    queue.put(number)
                    accepted.append(number)
                    number += 1
            except raddle.queue.ShutDown:
                pass

        def take(queue=queue, got=got):
            try:
                while True:
                    got.append(queue.get())
            except raddle.queue.ShutDown:
                pass

        crews = [Crew(give, args=(base,)) for base in (0, 10**6)] + [Crew(take) for _ in range(2)]
        for crew in crews:
            crew.__enter__()
        time.sleep(rng.random() * 0.004)
        immediate = lap % 2 == 1
        queue.shutdown(immediate)
        for crew in crews:
            crew.__exit__(None, None, None)
        assert queue.empty()
        if immediate:
            assert set(got) <= set(accepted)
            assert len(set(got)) == len(got)
        else:
            assert sorted(got) == sorted(accepted)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_batches_and_single_calls_mixed(raddle, kind, rng):
    queue = make(raddle, kind, 5)
    total = scaled(300)
    got = []

    def give(base):
        mine = rng_for(f"{kind} batch giver {base}")
        i = 0
        while i < total:
            size = min(mine.randrange(1, 12), total - i)
            if mine.random() < 0.5:
                assert queue.put_many(range(base + i, base + i + size)) == size
            else:
                for j in range(size):
                    queue.put(base + i + j)
            i += size

    def take(seed):
        mine = rng_for(f"{kind} batch taker {seed}")
        while len(got) < 3 * total:
            try:
                if mine.random() < 0.5:
                    got.extend(queue.get_many(mine.randrange(1, 9), timeout=0.02))
                else:
                    got.append(queue.get(timeout=0.02))
            except raddle.queue.Empty:
                pass

    crews = [Crew(give, args=(base,)) for base in (10**6, 2 * 10**6, 3 * 10**6)]
    crews += [Crew(take, args=(seed,)) for seed in range(3)]
    for crew in crews:
        crew.__enter__()
    for crew in crews:
        crew.__exit__(None, None, None)
    assert sorted(got) == [base + i for base in (10**6, 2 * 10**6, 3 * 10**6) for i in range(total)]
