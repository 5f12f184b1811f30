"""Arguments and results that are sent apart from the rings: kept, forked with, killed with, and given back."""

import gc
import hashlib
import os
import pickle
import random
import signal

import pytest
import raddle.multiprocessing
from raddle.concurrent.futures import ProcessPoolExecutor, WorkerDied

from tools import DEADLINE, check_child, rng_for, scaled, wait_until

SIZE = 5 << 20
#: Two workers keep two for each direction.
KEEP_MOST = 2 * 2 * 2 * (SIZE + (1 << 20))
KEPT = []


class Block:
    """Bytes that are pickled outside of the pickle, as an array's are."""

    def __init__(self, data):
        self.data = memoryview(data)

    def __reduce_ex__(self, protocol):
        return Block, (pickle.PickleBuffer(self.data),)

    def digest(self):
        return hashlib.sha1(self.data).hexdigest()


def block(number, size=SIZE):
    return Block(bytearray(random.Random(number).randbytes(4096) * (size // 4096)))


def digest(given):
    return given.digest()


def turned(given):
    """Changes what it was given, and gives it back."""
    given.data[0] ^= 255
    return given


def keep(given):
    KEPT.append(given)
    return os.getpid()


def die_once(given, mark):
    if not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return turned(given)


def kept():
    return [given.digest() for given in KEPT]


def channels():
    """The descriptors of channels that this process has, and how much memory is behind them."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            if "raddle-channel" in os.readlink(f"/proc/self/fd/{name}"):
                found[name] = os.stat(f"/proc/self/fd/{name}").st_blocks * 512
        except OSError:
            continue
    return found


@pytest.fixture(params=["fork", "spawn", "forkserver", "warm"])
def pool(request):
    with ProcessPoolExecutor(1, raddle.multiprocessing.get_context(request.param)) as made:
        yield made


@pytest.fixture
def warm():
    with ProcessPoolExecutor(2, raddle.multiprocessing.get_context("warm")) as made:
        yield made


def test_there_and_back(pool):
    for number in range(3):
        given = block(number)
        before = given.digest()
        back = pool.submit(turned, given).result(DEADLINE)
        assert given.digest() == before, "the task has a copy"
        back.data[0] ^= 255
        assert back.digest() == before


def test_what_a_worker_keeps_stays_as_it_is(warm):
    given = [block(number) for number in range(8)]
    for each in given:
        warm.submit(keep, each).result(DEADLINE)
    for _ in range(20):
        warm.submit(digest, block("other")).result(DEADLINE)
    expected, seen = {each.digest() for each in given}, set()
    wait_until(lambda: seen.update(warm.submit(kept).result(DEADLINE)) or len(seen) >= 8, "both have told")
    assert seen == expected


def test_memory_is_given_back(warm):
    for number in range(20):
        back = warm.submit(turned, block(number)).result(DEADLINE)
        del back
    gc.collect()
    assert sum(channels().values()) < KEEP_MOST
    for _ in range(5):
        list(warm.map(abs, range(1000)))
    assert sum(channels().values()) < SIZE, "they have had no large ones for a while"


def test_results_outlive_the_pool():
    before = channels()
    with ProcessPoolExecutor(1, raddle.multiprocessing.get_context("warm")) as pool:
        results = [pool.submit(turned, block(number)).result(DEADLINE) for number in range(4)]
    expected = [turned(block(number)).digest() for number in range(4)]
    wait_until(lambda: channels().keys() <= before.keys(), "the channels are closed")
    assert [result.digest() for result in results] == expected


def test_a_fork_has_its_own(warm):
    """What the parent frees or changes, the child still has; what the child changes, the parent does not see."""
    freed = warm.submit(turned, block(1)).result(DEADLINE)
    changed = warm.submit(turned, block(2)).result(DEADLINE)
    expected = freed.digest(), changed.digest()
    there, here = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(here)
            os.read(there, 1)
            same = (freed.digest(), changed.digest()) == expected
            changed.data[:] = bytes(SIZE)
            os._exit(0 if same else 3)
        finally:
            os._exit(4)
    del freed
    gc.collect()
    changed.data[1] ^= 255
    others = [warm.submit(turned, block(number)).result(DEADLINE) for number in range(3, 6)]
    os.close(here)
    os.close(there)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    changed.data[1] ^= 255
    assert changed.digest() == expected[1]
    assert [other.digest() for other in others] == [turned(block(number)).digest() for number in range(3, 6)]


def test_killed_at_random(warm):
    rng = rng_for("large messages and kills")
    blocks = [block(number) for number in range(4)]
    expected = [turned(block(number)).digest() for number in range(4)]
    lost = 0
    for _ in range(scaled(15, soak=300)):
        futures = [(warm.submit(turned, blocks[at % 4]), expected[at % 4]) for at in range(8)]
        victims = list(warm._processes or ())
        if victims:
            os.kill(rng.choice(victims), signal.SIGKILL)
        for future, right in futures:
            try:
                assert future.result(DEADLINE).digest() == right
            except WorkerDied:
                lost += 1
    del futures, future
    gc.collect()
    assert lost
    wait_until(lambda: sum(channels().values()) < KEEP_MOST, "the memory of the dead is freed")


def test_retried_after_a_kill(warm, tmp_path):
    """The message is sent again, to another worker."""
    future = warm.options(retries=1).submit(die_once, block(1), str(tmp_path / "died"))
    assert future.result(DEADLINE).digest() == turned(block(1)).digest()


def test_where_files_have_a_bound():
    """Behind it nothing can be written: messages go through rings."""
    check_child(
        "import resource\n"
        "from raddle.concurrent.futures import ProcessPoolExecutor\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))\n"
        "with ProcessPoolExecutor(1) as pool:\n"
        "    back = pool.submit(bytes, bytearray(b'x') * 5_000_000).result(60)\n"
        "print(back == b'x' * 5_000_000)",
        out="True\n",
    )
