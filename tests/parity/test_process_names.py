"""raddle.multiprocessing has every name of multiprocessing; what is not raddle's own is the same object."""

import concurrent.futures
import importlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.queues

import pytest
import raddle.multiprocessing as mp

from tools import check_child

OWN = {"JoinableQueue", "Pipe", "Pool", "Process", "Queue", "SimpleQueue"}
OWN |= {"Array", "Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore", "Value"}
OWN |= {"get_all_start_methods", "get_context", "get_start_method", "set_start_method"}
SAME_MODULES = "managers process reduction shared_memory sharedctypes util"


def square(number):
    return number * number


@pytest.mark.parametrize("name", multiprocessing.__all__)
def test_names(name):
    ours, reference = getattr(mp, name), getattr(multiprocessing, name)
    # The modules `context` and `connection` are ours; bound methods are made on each access, hence ==.
    assert (ours == reference) == (name not in OWN | {"context", "connection"})


def test_the_star_gives_all():
    names = {}
    exec("from raddle.multiprocessing import *", names)
    assert set(multiprocessing.__all__) <= set(names)


@pytest.mark.parametrize("name", SAME_MODULES.split())
def test_modules_of_the_standard_library(name):
    reference = importlib.import_module(f"multiprocessing.{name}")
    assert importlib.import_module(f"raddle.multiprocessing.{name}") is reference
    assert getattr(mp, name) is reference


def test_subtypes():
    assert isinstance(mp.Queue(), multiprocessing.queues.Queue)
    assert isinstance(mp.JoinableQueue(), multiprocessing.queues.JoinableQueue)
    assert isinstance(mp.SimpleQueue(), multiprocessing.queues.SimpleQueue)
    ends = mp.Pipe()
    assert all(isinstance(end, multiprocessing.connection.Connection) for end in ends)


def test_contexts():
    for method in multiprocessing.get_all_start_methods():
        context = mp.get_context(method)
        assert context.get_start_method() == method
        assert context.get_context() is context
        assert isinstance(context, type(multiprocessing.get_context(method)))
        assert isinstance(context.Queue(), mp.queues.Queue)
    warm = mp.get_context("warm")
    assert (warm.get_start_method(), type(warm.Process()).__name__) == ("warm", "WarmProcess")
    assert "warm" not in mp.get_all_start_methods()
    with pytest.raises(ValueError, match="cannot find context"):
        mp.get_context("none")


def test_one_start_method_for_both():
    code = """
import multiprocessing, raddle.multiprocessing as mp
mp.set_start_method("spawn")
print(multiprocessing.get_start_method(), mp.get_start_method(), type(mp.get_context()).__name__)
try:
    multiprocessing.set_start_method("fork")
except RuntimeError as error:
    print(error)
"""
    check_child(code, out="spawn spawn SpawnContext\ncontext has already been set\n")


def test_pools_of_a_context():
    context = mp.get_context("fork")
    with context.Pool(2) as pool:
        assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        assert list(executor.map(square, range(5))) == [0, 1, 4, 9, 16]
