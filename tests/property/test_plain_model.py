"""Pickles of plain objects beside the pickle module: they say the same, and anything else is left to it."""

import math
import pickle
import pickletools

import pytest
from raddle._raddle import plain_dumps, plain_loads

from tools import rng_for, scaled


def same(one, other):
    """Equal, and of the same types throughout."""
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, float):
        return math.copysign(1, one) == math.copysign(1, other) and (
            one == other or (one != one and other != other)
        )
    return one == other


def scalar(rng):
    return rng.choice(
        [
            None,
            rng.choice([True, False]),
            rng.randrange(-(2 ** rng.randrange(1, 64)), 2 ** rng.randrange(1, 63)),
            rng.choice([0, 255, 256, 65535, 65536, -1, 2**31 - 1, 2**31, -(2**31), 2**63 - 1, -(2**63)]),
            rng.choice([0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, rng.random()]),
            "".join(
                chr(rng.choice([65, 0, 233, 0x4E2D, 0x1F600])) for _ in range(rng.choice([0, 3, 70, 260]))
            ),
            rng.randbytes(rng.choice([0, 1, 255, 256, 300])),
        ]
    )


def plain(rng, depth=0):
    if depth < 3 and rng.random() < 0.4:
        return tuple(plain(rng, depth + 1) for _ in range(rng.randrange(6)))
    return scalar(rng)


def test_they_say_the_same():
    rng = rng_for("plain objects")
    written = 0
    for _ in range(scaled(3000, soak=200_000)):
        obj = plain(rng)
        if rng.random() < 0.3:
            obj = rng.choice(
                [[obj], (obj, [scalar(rng), obj]), [scalar(rng) for _ in range(rng.randrange(9))]]
            )
        data = plain_dumps(obj)
        if data is None:
            assert len(pickle.dumps(obj)) > 1000, obj
            continue
        written += 1
        pickletools.dis(data, out=open("/dev/null", "w"))  # noqa: SIM115 - raises if it is not well formed
        assert same(pickle.loads(data), obj)
        (read,) = plain_loads(data + rng.randbytes(8))
        assert same(read, obj)
    assert written > 1000


class Number(int):
    pass


@pytest.mark.parametrize(
    "obj",
    [
        Number(1),
        2**63,
        -(2**63) - 1,
        "\ud800",
        {1: {}},
        set(),
        bytearray(b"1"),
        1j,
        print,
        ([], []),
        [[]],
        ((((((((((1,),),),),),),),),),),
        "x" * 5000,
        b"x" * 5000,
        (1,) * 5000,
    ],
    ids=lambda obj: repr(obj)[:20],
)
def test_what_is_not_plain_is_left_alone(obj):
    assert plain_dumps(obj) is None


def test_a_list_that_holds_itself_is_left_alone():
    ring = [1]
    ring.append(ring)
    assert plain_dumps(ring) is None


def test_what_it_has_not_written_is_left_to_pickle():
    for obj in [{}, {"a": 1}, {1: {}}, "text" * 9, (1, "two", [3]), print, Number(5), 2**70, b"12345678"]:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            data = pickle.dumps(obj, protocol)
            read = plain_loads(data)
            assert read is None or same(read[0], pickle.loads(data))


def test_broken_pickles_are_none():
    rng = rng_for("broken plain pickles")
    for _ in range(scaled(20_000, soak=1_000_000)):
        obj = rng.choice([plain(rng), {scalar(rng): plain(rng)}, [plain(rng)]])
        data = bytearray(plain_dumps(obj) or b"\x80\x04")
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(data))
            data[at] = rng.choice(
                b"\x80\x04NKMJGXCB()\x85\x86\x87t]e.\xff\x00\x8a\x8c\x88" + rng.randbytes(1)
            )
        data = bytes(data[: rng.randrange(len(data) + 1)])
        read = plain_loads(data)
        if read is not None:
            # What can be read at all is what pickle reads.
            assert same(pickle.loads(data), read[0]), data
