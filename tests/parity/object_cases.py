"""What every class that CPython writes in Python allows: attributes, subclasses, patching."""

import copy
import gc
import pickle
import threading
import weakref
from unittest import mock

import pytest

from tools import STDLIB, check_signature


class ObjectCases:
    module = "threading"
    kind = None  # The name in its module.
    args = ()  # What makes one.
    methods = ()  # Whose signatures are compared.
    patched = None  # A method that tests replace in practice.

    @pytest.fixture
    def cls(self, impl):
        return getattr(getattr(impl, self.module), self.kind)

    @pytest.fixture
    def reference(self):
        return getattr(getattr(STDLIB, self.module), self.kind)

    @pytest.fixture
    def thing(self, cls):
        return cls(*self.args)

    def test_is_a_class(self, cls, thing):
        assert isinstance(cls, type)
        assert type(thing) is cls
        assert cls.__name__ == self.kind
        assert cls.__qualname__ == self.kind

    def test_takes_attributes(self, thing):
        thing.colour = "red"
        assert thing.colour == "red"
        assert thing.__dict__["colour"] == "red"
        assert vars(thing)["colour"] == "red"
        del thing.colour
        with pytest.raises(AttributeError):
            thing.colour  # noqa: B018

    def test_weakref(self, cls):
        thing = cls(*self.args)
        died = []
        reference = weakref.ref(thing, died.append)
        assert reference() is thing
        del thing
        gc.collect()
        assert reference() is None
        assert died == [reference]

    def test_cycle_is_collected(self, cls):
        thing = cls(*self.args)
        thing.myself = [thing]
        reference = weakref.ref(thing)
        del thing
        gc.collect()
        assert reference() is None

    def test_is_hashable_and_equal_to_itself_only(self, cls, thing):
        other = cls(*self.args)
        assert thing == thing
        assert thing != other
        assert len({thing, other, thing}) == 2

    def test_subclass(self, cls):
        class Derived(cls):
            def __init__(self, *args, label, **kwargs):
                super().__init__(*args, **kwargs)
                self.label = label

        thing = Derived(*self.args, label="mine")
        assert thing.label == "mine"
        assert isinstance(thing, cls)

    def test_subclass_with_slots_and_mixin(self, cls):
        class Mixin:
            __slots__ = ()

            def shout(self):
                return "HEY"

        class Derived(Mixin, cls):
            __slots__ = ("extra",)

        thing = Derived(*self.args)
        thing.extra = 1
        assert (thing.extra, thing.shout()) == (1, "HEY")

    def test_init_called_by_hand(self, cls):
        class Derived(cls):
            def __init__(self, outer):
                self.outer = outer
                cls.__init__(self, *self.arguments)

        Derived.arguments = self.args
        assert Derived("o").outer == "o"

    def test_patching_the_instance(self, thing):
        with mock.patch.object(thing, self.patched, return_value="fake") as fake:
            assert getattr(thing, self.patched)(1, a=2) == "fake"
        fake.assert_called_once_with(1, a=2)
        assert self.patched not in vars(thing)

    def test_patching_the_class(self, cls, thing):
        before = getattr(cls, self.patched)
        with mock.patch.object(cls, self.patched, autospec=True, return_value="fake"):
            assert getattr(cls, self.patched) is not before
        assert getattr(cls, self.patched) is before
        with mock.patch.object(cls, self.patched, lambda *args: ("fake", len(args))):
            assert getattr(thing, self.patched)() == ("fake", 1)

    def test_autospec(self, cls):
        fake = mock.create_autospec(cls, instance=True)
        assert isinstance(fake, cls)
        with pytest.raises(AttributeError):
            fake.no_such_method()

    def test_constructor_signature(self, cls, reference):
        check_signature(cls, reference, extra=["name"] if "name" not in self.own_parameters() else [])

    def own_parameters(self):
        return ()

    def test_method_signatures(self, cls, thing, reference):
        for name in self.methods:
            check_signature(getattr(cls, name), getattr(reference, name))
        other = reference(*self.args)
        for name in self.methods:
            check_signature(getattr(thing, name), getattr(other, name))

    def test_methods_have_documentation(self, cls, reference):
        for name in self.methods:
            if getattr(reference, name).__doc__:
                assert getattr(cls, name).__doc__, name
        assert cls.__doc__

    def test_public_names(self, cls, thing, reference):
        assert not {name for name in dir(reference) if not name.startswith("_")} - set(dir(cls))
        assert not {name for name in dir(reference(*self.args)) if not name.startswith("_")} - set(dir(thing))

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, pickle.dumps], ids=lambda f: f.__qualname__)
    def test_cannot_be_pickled(self, thing, duplicate):
        with pytest.raises(TypeError, match="cannot pickle"):
            duplicate(thing)

    def test_wrong_constructor_arguments(self, cls):
        for call in (lambda: cls(*self.args, no_such=1), lambda: cls(*self.args, *range(9))):
            with pytest.raises(TypeError):
                call()

    def test_leaves_no_thread_behind(self, cls):
        before = threading.enumerate()
        for _ in range(10):
            cls(*self.args)
        assert threading.enumerate() == before
