"""Calls go down, nothing points up: the layers of docs/design.md, read from the imports of both halves.

Only what a file imports counts: Rust paths that begin with `crate::` or `raddle::`, and Python's import statements.
Comments and the Rust files' test modules are left out.
"""

import ast
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
CORE = ROOT / "crates" / "raddle" / "src"
BINDINGS = ROOT / "crates" / "raddle-python" / "src"
PYTHON = ROOT / "python" / "raddle"

pytestmark = pytest.mark.skipif(not CORE.is_dir(), reason="needs the source tree")

# The core

#: Each part of the core, and the parts it may use.
PARTS = {
    "primitive": set(),
    "trace": {"primitive"},
    "park": {"primitive", "trace"},
    "sync": {"primitive", "trace", "park"},
    "queue": {"primitive", "trace", "park", "sync"},
    "timer": {"primitive", "trace", "park", "sync"},
    "thread": {"primitive", "trace", "park"},
    "future": {"primitive", "park"},
    "pool": {"primitive", "trace", "park", "future"},
    "ipc": {"primitive", "trace", "park"},
    "workers": {"trace", "park", "ipc", "pool"},
    "detect": {"trace"},
}


def rust(path):
    """The code of a Rust file without comments, strings and test modules."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', text)
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    head, *tests = re.split(r"#\[cfg\((?:test|all\(test\b[^]]*)\)\]\s*mod \w+ \{", text)
    for test in tests:
        depth = 1
        for at, letter in enumerate(test):
            depth += {"{": 1, "}": -1}.get(letter, 0)
            if not depth:
                head += test[at + 1 :]
                break
    return head


def crate_paths(text, crate):
    """The first parts of the paths in a crate: `crate::park::wake` gives park, and `crate::{a, b::c}` a and b."""
    found = set(re.findall(rf"\b{crate}::(\w+)", text))
    for start in (match.end() for match in re.finditer(rf"\b{crate}::\{{", text)):
        depth, part = 1, ""
        for letter in text[start:]:
            depth += {"{": 1, "}": -1}.get(letter, 0)
            if depth == 1 and letter == ",":
                found.add(part.strip().partition("::")[0])
                part = ""
            elif depth == 0:
                found.add(part.strip().partition("::")[0])
                break
            else:
                part += letter
    return found - {""}


def core_arrows():
    """(file, its part, another part it names), for the whole core."""
    for path in sorted(CORE.rglob("*.rs")):
        name = path.relative_to(CORE).as_posix()
        part = name.partition("/")[0].removesuffix(".rs")
        if part == "lib":
            continue
        text = rust(path)
        used = crate_paths(text, "crate")
        # `super::super::x` from a part's file, and `super::x` from a part's own mod.rs, leave the part too.
        used |= set(re.findall(r"\bsuper::super::(\w+)", text))
        if name == f"{part}/mod.rs":
            used |= set(re.findall(r"^use super::(\w+)", text, re.MULTILINE))
        for other in used & set(PARTS) - {part}:
            yield name, part, other


def test_the_core_has_these_parts():
    there = {path.stem for path in CORE.iterdir() if path.suffix == ".rs" or path.is_dir()} - {"lib"}
    assert there == set(PARTS)


def test_the_core_points_down():
    up = {(name, other) for name, part, other in core_arrows() if other not in PARTS[part]}
    assert sorted(up) == []


def test_detection_is_used_by_no_primitive_and_reads_the_trace_only():
    arrows = list(core_arrows())
    assert [arrow for arrow in arrows if arrow[2] == "detect"] == []
    assert {arrow[2] for arrow in arrows if arrow[1] == "detect"} == {"trace"}


def test_the_core_knows_no_python():
    manifest = (CORE.parent / "Cargo.toml").read_text(encoding="utf-8")
    assert "pyo3" not in manifest
    for path in CORE.rglob("*.rs"):
        assert not re.search(r"\bpyo3\b|\bffi::Py|\bPy_", rust(path)), path.name


def test_only_the_border_detaches():
    """Letting go of the interpreter and taking it back is gil.rs's; see "Rules at the border"."""
    calls = r"\b(?:PyEval_SaveThread|PyEval_RestoreThread)\b|\.detach\(|\ballow_threads\("
    found = {
        path.relative_to(BINDINGS).as_posix()
        for path in BINDINGS.rglob("*.rs")
        if re.search(calls, rust(path))
    }
    assert found <= {"gil.rs"}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("use crate::park::{Alone, Parking};", {"park"}),
        ("use crate::{park::{Alone, Parking}, sync, trace::Kind};", {"park", "sync", "trace"}),
        ("fn f() { crate::queue::g(); }", {"queue"}),
        ("use super::heap;", set()),
    ],
)
def test_reader_of_rust_paths(text, parts):
    assert crate_paths(text, "crate") == parts


# Python

MIRRORS = {"threading", "queue", "sched", "concurrent"}

#: What each module of raddle may import of raddle; "" is the package itself, which must stay cheap.
ALLOWED = {
    "__init__": {"_install", "deadlock"},
    "__main__": {"cli"},
    "_named_tuple": set(),
    "_originals": set(),
    "_install": {"_named_tuple", "_originals"},
    "_open_queue": {"_raddle"},
    "threading": {"_named_tuple", "_originals", "_raddle", "deadlock"},
    "queue": {"_raddle", "_open_queue", "threading"},
    "sched": {"_raddle", "threading"},
    "cancel": {"_raddle"},
    "concurrent/__init__": set(),
    "concurrent/futures/__init__": {"concurrent"},
    "concurrent/futures/_base": {"_raddle", "cancel", "concurrent"},
    "concurrent/futures/_progress": set(),
    "concurrent/futures/process": {"_raddle", "concurrent", "multiprocessing", "queue"},
    "concurrent/futures/thread": {"_raddle", "concurrent", "queue", "threading"},
    "deadlock": {"_named_tuple", "_raddle"},
    "multiprocessing/__init__": {"multiprocessing", "queue"},
    "multiprocessing/_ahead": set(),
    "multiprocessing/_arena": {"_raddle"},
    "multiprocessing/_ends": {"_raddle", "multiprocessing"},
    "multiprocessing/_in_forkserver": {"multiprocessing"},
    "multiprocessing/_lifeline": set(),
    "multiprocessing/_pickling": set(),
    "multiprocessing/_warm": {"_originals", "multiprocessing"},
    "multiprocessing/_warm_server": {"multiprocessing"},
    "multiprocessing/_worker": {"_raddle", "multiprocessing"},
    "multiprocessing/_workers": {
        "_install",
        "_raddle",
        "cancel",
        "concurrent",
        "multiprocessing",
        "threading",
    },
    "multiprocessing/connection": {"_raddle", "multiprocessing"},
    "multiprocessing/context": {"multiprocessing"},
    "multiprocessing/managers": set(),
    "multiprocessing/pool": {"_raddle", "concurrent", "multiprocessing", "threading"},
    "multiprocessing/process": set(),
    "multiprocessing/reduction": set(),
    "multiprocessing/shared_memory": set(),
    "multiprocessing/sharedctypes": set(),
    "multiprocessing/spawn": set(),
    "multiprocessing/synchronize": {"_raddle", "multiprocessing", "threading"},
    "multiprocessing/util": set(),
    "multiprocessing/queues": {"_raddle", "multiprocessing", "queue"},
    "cli/__init__": {"cli", ""},
    "cli/run": {"_named_tuple", "cli", "deadlock", ""},
}


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def statements(tree):
    """All nodes that run: not those in `if TYPE_CHECKING`."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        todo.extend(node.orelse if is_type_checking(node) else ast.iter_child_nodes(node))


def imports_of(name):
    """(module of raddle, name taken from it or None, line, whether it is done when the file is loaded)."""
    tree = ast.parse((PYTHON / f"{name}.py").read_text(encoding="utf-8"))
    at_load = {id(node) for node in tree.body}
    for node in statements(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}.py:{node.lineno}: imports are absolute"
            package, _, module = (node.module or "").partition(".")
            if package != "raddle":
                continue
            for alias in node.names:
                within = module.partition(".")[0]
                if within or not is_module(alias.name):
                    yield within, alias.name, node.lineno, id(node) in at_load
                else:
                    yield alias.name, None, node.lineno, id(node) in at_load
        elif isinstance(node, ast.Import):
            for alias in node.names:
                package, _, module = alias.name.partition(".")
                if package == "raddle":
                    yield module.partition(".")[0], None, node.lineno, id(node) in at_load


def is_module(name):
    return name == "_raddle" or (PYTHON / f"{name}.py").exists() or (PYTHON / name / "__init__.py").exists()


FILES = sorted(path.relative_to(PYTHON).with_suffix("").as_posix() for path in PYTHON.rglob("*.py"))


def test_every_module_has_its_place():
    assert set(FILES) == set(ALLOWED)


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_what_its_layer_may(name):
    wrong = [
        f"{name}.py:{line}: {module}"
        for module, _, line, _ in imports_of(name)
        if module not in ALLOWED.get(name, ())
    ]
    assert wrong == []


def test_mirrors_import_no_observer_but_for_one_line():
    """Detection is on wherever raddle's threads are: the last import of threading.py."""
    found = [
        (name, *row)
        for name in FILES
        if name.partition("/")[0] in MIRRORS
        for row in imports_of(name)
        if row[0] in ("deadlock", "cli")
    ]
    assert [(name, module, at_load) for name, module, _, _, at_load in found] == [
        ("threading", "deadlock", True)
    ]
    tree = ast.parse((PYTHON / "threading.py").read_text(encoding="utf-8"))
    assert tree.body[-1].lineno == found[0][3], "it stands at the end"


def test_the_command_line_takes_public_names_only():
    shared = {"__version__", "_named_tuple"}  # what every module may have
    for name in FILES:
        if name.startswith("cli/"):
            for module, taken, line, _ in imports_of(name):
                assert module not in MIRRORS, f"{name}.py:{line}"
                private = [
                    part for part in (module, taken or "") if part.startswith("_") and part not in shared
                ]
                assert not private, f"{name}.py:{line}"


def test_the_package_loads_nothing_of_its_own():
    """`import raddle` is cheap: what it needs is imported when it is asked for."""
    assert [row for row in imports_of("__init__") if row[3]] == []


#: What a program may have installed, and is used then.
OPTIONAL = {
    "concurrent/futures/_progress": {"tqdm", "rich"},
    "multiprocessing/_workers": {"cloudpickle"},
}


def test_nothing_third_party():
    for name in FILES:
        tree = ast.parse((PYTHON / f"{name}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            modules = []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            for module in modules:
                top = module.partition(".")[0]
                known = top == "raddle" or top in sys.stdlib_module_names or top in OPTIONAL.get(name, ())
                assert known, f"{name}.py:{node.lineno}: {module}"
