"""threading.local on both implementations."""

import copy
import gc
import pickle
import threading
import weakref

import pytest

from tools import Crew, in_thread


class Payload:
    pass


class TestLocal:
    @pytest.fixture
    def cls(self, impl):
        return impl.threading.local

    def test_every_thread_has_its_own(self, cls):
        local = cls()
        local.value = "main"

        def work(number):
            assert not hasattr(local, "value")
            local.value = number
            barrier.wait()
            return local.value

        barrier = threading.Barrier(5)
        crews = [Crew(work, args=(i,)) for i in range(5)]
        for crew in crews:
            crew.__enter__()
        for crew in crews:
            crew.__exit__(None, None, None)
        assert [crew.results[0] for crew in crews] == [0, 1, 2, 3, 4]
        assert local.value == "main"

    def test_works_in_threads_of_its_own_kind(self, impl, cls):
        local = cls()
        local.value = 1
        assert in_thread(lambda: hasattr(local, "value"), thread=impl.threading.Thread) is False

    def test_attributes(self, cls):
        local = cls()
        local.a, local.b = 1, 2
        assert local.__dict__ == {"a": 1, "b": 2}
        assert vars(local) == {"a": 1, "b": 2}
        del local.a
        with pytest.raises(AttributeError):
            local.a  # noqa: B018
        with pytest.raises(AttributeError):
            del local.a
        assert getattr(local, "a", None) is None
        assert in_thread(lambda: dict(vars(local))) == {}

    def test_dict_cannot_be_replaced(self, cls):
        local = cls()
        with pytest.raises(AttributeError):
            local.__dict__ = {}
        with pytest.raises(AttributeError):
            del local.__dict__

    def test_dict_can_be_changed(self, cls):
        local = cls()
        local.__dict__["x"] = 5
        assert local.x == 5

    def test_arguments_need_an_init(self, cls):
        for call in (lambda: cls(1), lambda: cls(a=1), lambda: cls(1, a=1)):
            with pytest.raises(TypeError, match="Initialization arguments are not supported"):
                call()

    def test_init_runs_in_every_thread(self, cls):
        class Counter(cls):
            made = 0

            def __init__(self, start, *, step):
                type(self).made += 1
                self.value = start
                self.step = step

        local = Counter(10, step=2)
        local.value += local.step
        assert in_thread(lambda: (local.value, local.step)) == (10, 2)
        assert local.value == 12
        assert Counter.made == 2

    def test_init_that_raises(self, cls):
        class Fragile(cls):
            def __init__(self):
                if threading.current_thread() is not threading.main_thread():
                    raise ZeroDivisionError
                self.value = 1

        local = Fragile()
        assert local.value == 1
        with pytest.raises(ZeroDivisionError):
            in_thread(lambda: local.value)
        assert local.value == 1

    def test_methods_and_class_attributes(self, cls):
        class Derived(cls):
            limit = 5

            def double(self):
                return self.value * 2

        local = Derived()
        local.value = 4
        assert local.double() == 8
        assert in_thread(lambda: local.limit) == 5
        local.limit = 6
        assert in_thread(lambda: local.limit) == 5

    def test_slots_are_shared(self, cls):
        class Slotted(cls):
            __slots__ = ("shared",)

        local = Slotted()
        local.shared = 1
        local.own = 2
        assert in_thread(lambda: (local.shared, hasattr(local, "own"))) == (1, False)

    def test_values_die_with_their_thread(self, impl, cls):
        local = cls()
        references = []

        def work():
            local.value = Payload()
            references.append(weakref.ref(local.value))

        for thread in (threading.Thread, impl.threading.Thread):
            for _ in range(5):
                in_thread(work, thread=thread)
        assert len(references) == 10
        assert [reference() for reference in references] == [None] * 10

    def test_values_die_with_the_object(self, cls):
        local = cls()
        local.value = Payload()
        reference = weakref.ref(local.value)
        del local
        gc.collect()
        assert reference() is None

    def test_values_of_other_threads_die_with_the_object(self, cls):
        box = [cls()]
        references, ready, gate = [], threading.Event(), threading.Event()

        def work():
            box[0].value = Payload()
            references.append(weakref.ref(box[0].value))
            ready.set()
            gate.wait()

        with Crew(work):
            ready.wait()
            box.clear()
            gc.collect()
            assert references[0]() is None
            gate.set()

    def test_cycle_is_collected(self, cls):
        local = cls()
        local.value = [local]
        reference = weakref.ref(local)
        del local
        gc.collect()
        assert reference() is None

    def test_value_whose_end_uses_the_local(self, cls):
        local = cls()
        log = []

        class Last:
            def __del__(self):
                log.append(hasattr(local, "value"))

        def work():
            local.value = Last()
            local.other = Last()

        in_thread(work)
        gc.collect()
        assert len(log) == 2

    def test_cannot_be_copied(self, cls):
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                duplicate(cls())

    def test_many(self, cls):
        locals_ = [cls() for _ in range(200)]

        def work():
            for i, local in enumerate(locals_):
                local.value = i
            return sum(local.value for local in locals_)

        with Crew(work, 5) as crew:
            pass
        assert crew.results == [sum(range(200))] * 5
