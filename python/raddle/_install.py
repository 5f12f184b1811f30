"""``install()`` and ``uninstall()``: the names of the standard modules, bound to raddle's objects and back.

What is replaced is a table, one row for each standard module. A name is rebound where the mirror has an
object of its own; where the mirror re-exports the standard object there is nothing to do. Names that a module
or a class took before the installation keep the standard object: ``Installation.missed`` lists them.
"""

from __future__ import annotations

import _thread
import importlib
import os
import sys
import threading
from _weakref import ref
from collections import defaultdict
from collections.abc import Iterable, Iterator
from types import FunctionType, ModuleType

from raddle import _originals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple
else:
    from raddle._named_tuple import NamedTuple

__all__ = ["Installation", "install", "uninstall"]


class Area(NamedTuple):
    """One standard module and what follows it beyond its public names."""

    standard: str
    """The standard module; its mirror is ``raddle.`` and the same path."""
    private: tuple[tuple[str, str], ...] = ()
    """Private names that the standard module's own code looks up at each use, and the mirror's for each."""
    elsewhere: tuple[tuple[str, str, str], ...] = ()
    """Names of other modules, as (module, name, the mirror's)."""
    added: tuple[str, ...] = ()
    """Names of newer Pythons that the mirror offers on every version."""
    rebased: tuple[tuple[str, str], ...] = ()
    """Private classes whose live instances must be instances of a replaced class too, and that class."""
    aliases: tuple[tuple[str, str, str], ...] = ()
    """Other ways to a constructor, as (module, name, public name): only for finding what was missed."""
    package: str | None = None
    """The package whose import replaces it, if that has not been imported yet: who never does pays nothing."""
    only: tuple[str, ...] = ()
    """The only names that are replaced, where the others are not for programs."""


AREAS = (
    Area(
        "threading",
        # The function threading.RLock makes a _CRLock: who took the function earlier is reached this way.
        private=(("_CRLock", "RLock"),),
        elsewhere=(("_thread", "_count", "_count"),),
        # The main thread and threads that Python did not start must stay instances of threading.Thread.
        rebased=(("_MainThread", "Thread"), ("_DummyThread", "Thread")),
        aliases=(("_thread", "allocate_lock", "Lock"), ("_thread", "RLock", "RLock")),
    ),
    Area("queue", added=("ShutDown",), package="queue"),
    Area("sched", package="sched"),
    Area("concurrent.futures._base", package="concurrent.futures"),
    Area("concurrent.futures.thread", package="concurrent.futures"),
    Area("concurrent.futures", package="concurrent.futures"),
    Area("concurrent.futures.process", package="concurrent.futures.process"),
    Area("multiprocessing", package="multiprocessing"),
    Area("multiprocessing.pool", package="multiprocessing.pool", only=("Pool", "ThreadPool")),
    Area("multiprocessing.connection", package="multiprocessing.connection", only=("wait",)),
    # What children are told, and how they begin: they install too.
    Area(
        "multiprocessing.spawn", package="multiprocessing", only=("get_command_line", "get_preparation_data")
    ),
)

#: Modules that are made of the insides of a standard object: they are loaded with that in its place.
_BUILT_ON = {"multiprocessing.synchronize": ("threading", "Barrier")}

# Public functions that look their type up at each call, so that taking them early does no harm.
_FOLLOWERS = {"threading.RLock"}

_MISSING: Any = object()

# By a module that is looked for as the others are: the same folder may have several names.
_STANDARD_LIBRARY = os.path.join(os.path.dirname(threading.__file__), "")


class Installation:
    """What ``install()`` did.

    Attributes:
        replaced: the standard names that are raddle's now, such as ``"threading.Lock"``. Those of modules that were
            not loaded are replaced when they are imported, and listed from then on.
        missed: sentences about what still is the standard library's. Looked for at the first access, in the
            modules that were loaded when ``install()`` ran; O(names in them), about 50 ms for a thousand.
    """

    __slots__ = ("__weakref__", "_loaded", "_missed", "_originals", "_undo", "replaced")

    def __init__(self) -> None:
        self.replaced: list[str] = []
        # (object, attribute, before, now), in order of change
        self._undo: list[tuple[Any, str, Any, Any]] = []
        self._originals: dict[int, tuple[str, Any]] = {}  # id of a standard object: (its public name, itself)
        self._loaded = [(name, ref(module)) for name, module in _modules() if not _is_owner(name)]
        self._missed: list[str] | None = None

    @property
    def missed(self) -> list[str]:
        if self._missed is None:
            self._missed = sorted(set(_find_missed(self._loaded, self._originals)))
        return self._missed

    @property
    def awaited(self) -> list[str]:
        """The standard modules whose names will be replaced when they are imported."""
        packages = dict.fromkeys(area.package for area in AREAS if area.package is not None)
        return [package for package in packages if package not in sys.modules]

    def __repr__(self) -> str:
        return f"<raddle.Installation: {len(self.replaced)} names replaced, {len(self.missed)} not reached>"


# Re-entrant: what is replaced may be loaded for that, and what that loads may be replaced.
_lock = _originals.RLock()
_current: Installation | None = None

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]


def install() -> Installation:
    """Rebind the standard modules' names; see ``raddle.install``."""
    global _current
    with _lock:
        if _current is None:
            pairs = _import_areas()
            done = Installation()
            try:
                for area, standard, mirror in pairs:
                    _replace(done, area, standard, mirror)
            except BaseException:
                _restore(done)
                raise
            _current = done
            for _, _, mirror in pairs:
                getattr(mirror, "_installed", _nothing)()
            sys.meta_path.insert(0, _finder)
        return _current


def uninstall() -> None:
    """Undo ``install``; see ``raddle.uninstall``."""
    global _current
    with _lock:
        if _current is not None:
            _restore(_current)
            _current = None
            if _finder in sys.meta_path:
                sys.meta_path.remove(_finder)
            for area in AREAS:
                mirror = sys.modules.get("raddle." + area.standard)
                getattr(mirror, "_uninstalled", _nothing)()


def is_installed() -> bool:
    """Whether ``install()`` has been called, and not undone."""
    return _current is not None


def _nothing() -> None:
    pass


def _import_areas() -> list[tuple[Area, ModuleType, ModuleType]]:
    """Load every mirror first, so that a failure leaves everything as it was."""
    if not _in_main_interpreter():
        raise ImportError(
            "raddle.install() works in the main interpreter only: "
            "in a sub-interpreter its extension cannot be loaded"
        )
    return _load(area for area in AREAS if area.package is None or area.package in sys.modules)


def _load(areas: Iterable[Area]) -> list[tuple[Area, ModuleType, ModuleType]]:
    """The areas with their standard modules and mirrors."""
    return [
        (area, importlib.import_module(area.standard), importlib.import_module("raddle." + area.standard))
        for area in areas
    ]


class _Finder:
    """Replaces the names of a package when it, or its mirror, is imported after ``install()``; see also _BUILT_ON."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        areas = [area for area in AREAS if area.package in (name, name.removeprefix("raddle."))]
        base = _BUILT_ON.get(name)
        if not areas and base is None:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                break
        else:
            return None
        if not name.startswith("raddle.") and not str(spec.origin).startswith(_STANDARD_LIBRARY):
            return None  # a module of the program's, with the same name
        loader: Any = spec.loader
        load = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            if base is not None:
                self._load_on(base, load, module)
                return
            load(module)
            mirror = sys.modules.get(f"raddle.{name}")
            # A mirror imports its package before it has names of its own: then it is too early, and it comes here too.
            if mirror is None or not getattr(mirror.__spec__, "_initializing", False):
                self._replace(areas)

        # On this one loader, which stays what it is to whoever asks it for the source.
        loader.exec_module = exec_module
        return spec

    def _load_on(self, base: tuple[str, str], load: Any, module: ModuleType) -> None:
        owner, name = sys.modules[base[0]], base[1]
        undo = [] if _current is None else _current._undo
        old = next((old for one, attribute, old, _ in undo if one is owner and attribute == name), _MISSING)
        if old is _MISSING:
            load(module)
            return
        now = getattr(owner, name)
        setattr(owner, name, old)
        try:
            load(module)
        finally:
            setattr(owner, name, now)

    def _replace(self, areas: list[Area]) -> None:
        # Loaded without the lock: another thread may hold it and wait for an import of this one.
        loaded = _load(areas)
        with _lock:
            if _current is not None:
                for area, standard, mirror in loaded:
                    _replace(_current, area, standard, mirror)


_finder: Any = _Finder()


def _in_main_interpreter() -> bool:
    if hasattr(_thread, "_is_main_interpreter"):  # from 3.12 on
        return bool(_thread._is_main_interpreter())
    try:
        interpreters = importlib.import_module("_xxsubinterpreters")
    except ImportError:  # then nobody can make one
        return True
    return bool(interpreters.get_current() == interpreters.get_main())


def _replace(done: Installation, area: Area, standard: ModuleType, mirror: ModuleType) -> None:
    wanted = {name: name for name in area.only or _public_names(standard)} | dict(area.private)
    for name, mirrored in sorted(wanted.items()):
        # What has not been loaded is not loaded for this.
        old = vars(standard).get(name, _MISSING)
        new = _MISSING if old is _MISSING else getattr(mirror, mirrored, _MISSING)
        if new is _MISSING or new is old or old is None or isinstance(new, ModuleType):
            continue
        label = f"{area.standard}.{name}"
        if label not in _FOLLOWERS:
            done._originals[id(old)] = (f"{area.standard}.{mirrored}", old)
        _set(done, standard, name, new)
        done.replaced.append(label)
    for module, name, mirrored in area.elsewhere:
        _set(done, importlib.import_module(module), name, getattr(mirror, mirrored))
        done.replaced.append(f"{module}.{name}")
    for name in area.added:
        if name not in vars(standard) and hasattr(mirror, name):
            _set(done, standard, name, getattr(mirror, name))
            done.replaced.append(f"{area.standard}.{name}")
    for module, name, public in area.aliases:
        alias = getattr(importlib.import_module(module), name, None)
        if alias is not None and f"{area.standard}.{public}" in done.replaced:
            done._originals.setdefault(id(alias), (f"{area.standard}.{public}", alias))
    for name, base in area.rebased:
        cls, new = vars(standard).get(name), getattr(mirror, base, object)
        if cls is not None and f"{area.standard}.{base}" in done.replaced and not issubclass(cls, new):
            _set(done, cls, "__bases__", (new,))


def _set(done: Installation, owner: Any, name: str, new: Any) -> None:
    old = getattr(owner, name, _MISSING)
    setattr(owner, name, new)
    done._undo.append((owner, name, old, new))


def _restore(done: Installation) -> None:
    """Undo in reverse order; what somebody else has rebound since stays theirs."""
    while done._undo:
        owner, name, old, new = done._undo.pop()
        now = getattr(owner, name, _MISSING)
        if now is not new and not (name == "__bases__" and now == new):
            continue
        if old is _MISSING:
            delattr(owner, name)
        else:
            setattr(owner, name, old)


def _public_names(module: ModuleType) -> set[str]:
    """``__all__``, and what the module defines itself under a public name (``sched.Event``)."""
    own = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    return own | set(getattr(module, "__all__", ()))


# What was missed


def _is_owner(name: str) -> bool:
    """Whether a module is raddle's, or one that owns the standard objects."""
    owners = {"_thread", "_queue", "_weakref"} | {area.standard for area in AREAS}
    return name in owners or name == "raddle" or name.startswith(("raddle.", "multiprocessing."))


def _modules() -> Iterator[tuple[str, ModuleType]]:
    seen = set()
    for name, module in list(sys.modules.items()):
        if issubclass(type(module), ModuleType) and id(module) not in seen:
            seen.add(id(module))
            yield name, module


def _find_missed(
    loaded: list[tuple[str, ref[ModuleType]]], originals: dict[int, tuple[str, Any]]
) -> Iterator[str]:
    for name, reference in loaded:
        module = reference()
        if module is not None:
            # Not vars(): it would load a lazy module.
            yield from _missed_in(name, object.__getattribute__(module, "__dict__"), name, originals)
    for label, old in originals.values():
        if isinstance(old, type):
            for cls in _subclasses(old, originals):
                name = f"{cls.__module__}.{cls.__qualname__}"
                yield f"{name} still derives from {label}: defined before install()"


def _missed_in(
    path: str, names: dict[str, Any], module: str, originals: dict[int, tuple[str, Any]]
) -> Iterator[str]:
    """Look through the names of a module or class, and through the classes and functions defined there."""
    for name, value in list(names.items()):
        where = f"{path}.{name}"
        if id(value) in originals:
            yield _sentence(where, value, originals)
            continue
        # By type(), not isinstance(): that asks the object for its class, and a lazy module loads itself.
        kind = type(value)
        if kind is staticmethod or kind is classmethod:
            value = value.__func__
            if id(value) in originals:
                yield _sentence(where, value, originals)
                continue
            kind = type(value)
        if issubclass(kind, type):
            if value.__module__ == module and value.__qualname__ == where[len(module) + 1 :]:
                yield from _missed_in(where, vars(value), module, originals)
                yield from _missed_in_fields(where, value, originals)
        elif kind is FunctionType:
            if value.__module__ == module:
                yield from _missed_in_defaults(where, value, originals)
        elif kind is defaultdict and id(value.default_factory) in originals:
            yield _sentence(f"the default factory of {where}", value.default_factory, originals)


def _missed_in_defaults(
    where: str, function: FunctionType, originals: dict[int, tuple[str, Any]]
) -> Iterator[str]:
    code, defaults = function.__code__, function.__defaults__ or ()
    positional = code.co_varnames[: code.co_argcount]
    given = dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
    for name, value in {**given, **(function.__kwdefaults__ or {})}.items():
        if id(value) in originals:
            yield _sentence(f"the default of {name!r} in {where}()", value, originals)


def _missed_in_fields(where: str, cls: type, originals: dict[int, tuple[str, Any]]) -> Iterator[str]:
    fields = vars(cls).get("__dataclass_fields__")
    for name, field in fields.items() if isinstance(fields, dict) else ():
        factory = getattr(field, "default_factory", None)
        if id(factory) in originals:
            yield _sentence(f"the default factory of the field {where}.{name}", factory, originals)


def _sentence(where: str, value: Any, originals: dict[int, tuple[str, Any]]) -> str:
    return f"{where} is still {originals[id(value)][0]}: bound before install()"


def _subclasses(cls: type, originals: dict[int, tuple[str, Any]]) -> Iterator[type]:
    """The classes below ``cls`` outside its module, without those below another replaced class."""
    subclasses: list[type] = type.__subclasses__(cls)
    for sub in subclasses:
        if id(sub) in originals or sub.__module__.partition(".")[0] == "raddle":
            continue
        if not _is_owner(sub.__module__):
            yield sub
        yield from _subclasses(sub, originals)
