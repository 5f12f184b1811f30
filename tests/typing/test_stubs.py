"""The stub of the extension says what the built module has, and every exported name imports."""

import ast
import importlib
import inspect
import pathlib
import pkgutil
import sys

import pytest
import raddle
from raddle import _raddle

FOLDER = pathlib.Path(raddle.__file__).parent
STUB = ast.parse((FOLDER / "_raddle.pyi").read_text(encoding="utf-8"))

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(FOLDER)], "raddle.")
    # The command line runs when it is imported.
    if module.name not in ("raddle.__main__", "raddle._raddle")
)


def is_dunder(name):
    return name.startswith("__") and name.endswith("__")


def defined(body):
    """The names that statements of a stub define, and the first of the nodes that define each."""
    names = {}
    for node in body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names.setdefault(name, node)
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.setdefault(name, node)
            case ast.Assign(targets=[ast.Name(id=name)]):
                names.setdefault(name, node)
    return names


TOP = {name: node for name, node in defined(STUB.body).items() if is_dunder(name) or not name.startswith("_")}
CLASSES = {name: node for name, node in TOP.items() if isinstance(node, ast.ClassDef)}
FUNCTIONS = {name: node for name, node in TOP.items() if isinstance(node, ast.FunctionDef)}


def built(name):
    """The object of that name. Before 3.13 Lock is a function, as in the standard library; its type is another name."""
    return _raddle.LockType if name == "Lock" else getattr(_raddle, name)


def test_top_level_names():
    there = {name for name in vars(_raddle) if not name.startswith("_")}
    assert {name for name in TOP if not is_dunder(name)} == there
    assert isinstance(_raddle.__version__, str) and "__version__" in TOP
    assert isinstance(built("Lock"), type) and _raddle.LockType is built("Lock")
    assert inspect.isclass(_raddle.Lock) == (sys.version_info >= (3, 13))


def test_every_type_is_a_class_of_the_stub():
    assert set(CLASSES) == {name for name, value in vars(_raddle).items() if isinstance(value, type)} - {
        "LockType"
    } | {"Lock"}
    for name, node in CLASSES.items():
        bases = [base.value.id if isinstance(base, ast.Subscript) else base.id for base in node.bases]
        expected = [base.__name__ for base in built(name).__bases__ if base is not object]
        assert [base for base in bases if base != "Generic"] == expected, name


@pytest.mark.parametrize("name", CLASSES)
def test_names_of_a_type(name):
    """Private ones too: they are the standard library's, which programs use."""
    stub = {member for member in defined(CLASSES[name].body) if not is_dunder(member)}
    assert stub == {member for member in vars(built(name)) if not is_dunder(member)}


@pytest.mark.parametrize("name", CLASSES)
def test_special_names_of_a_type_exist(name):
    for member in defined(CLASSES[name].body):
        assert hasattr(built(name), member), member
    for member in ("__enter__", "__exit__"):
        assert (member in defined(CLASSES[name].body)) == (member in vars(built(name))), member


@pytest.mark.parametrize("name", CLASSES)
def test_properties_and_methods_are_such(name):
    for member, node in defined(CLASSES[name].body).items():
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            assert callable(getattr(built(name), member)), member
        elif not is_dunder(member):
            assert not callable(inspect.getattr_static(built(name), member)), member


ANY = object()


def parameters_in_stub(node, *, method):
    """(name or None where it is given by position only, kind, default or ANY where the stub leaves it open)."""
    args = node.args

    def default(value):
        if value is None:
            return inspect.Parameter.empty
        return ANY if isinstance(value, ast.Constant) and value.value is ... else ast.literal_eval(value)

    by_position = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(by_position) - len(args.defaults)) + args.defaults
    found = []
    for at, (arg, value) in enumerate(zip(by_position, defaults, strict=True)):
        only = at < len(args.posonlyargs)
        kind = inspect.Parameter.POSITIONAL_ONLY if only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        found.append((None if only else arg.arg, kind, default(value)))
    if args.vararg:
        found.append((args.vararg.arg, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.empty))
    for arg, value in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        found.append((arg.arg, inspect.Parameter.KEYWORD_ONLY, default(value)))
    if args.kwarg:
        found.append((args.kwarg.arg, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.empty))
    return found[1:] if method else found


def parameters_built(signature, *, method):
    found = [
        (
            None if parameter.kind is parameter.POSITIONAL_ONLY else parameter.name,
            parameter.kind,
            parameter.default,
        )
        for parameter in signature.parameters.values()
    ]
    return found[1:] if method else found


def assert_same(stub, built, where):
    assert [row[:2] for row in stub] == [row[:2] for row in built], where
    for (name, _, said), (_, _, real) in zip(stub, built, strict=True):
        assert said is ANY or (said == real and type(said) is type(real)), f"{where}: default of {name}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signature_of_a_function(name):
    signature = inspect.signature(getattr(_raddle, name))
    assert_same(
        parameters_in_stub(FUNCTIONS[name], method=False), parameters_built(signature, method=False), name
    )


#: Their C functions pass on whatever they are given, or are old names without a signature in their docstring.
WITHOUT_SIGNATURE = {"Condition.acquire", "Lock.acquire_lock"}


@pytest.mark.parametrize("name", CLASSES)
def test_signatures_of_a_type(name):
    """Constructors and methods; those whose docstring has no signature are in the set above or take no argument."""
    stub = defined(CLASSES[name].body)
    if built(name).__text_signature__:
        signature = inspect.signature(_raddle.Lock if name == "Lock" else built(name))
        said = parameters_in_stub(stub["__init__"], method=True)
        assert_same(said, parameters_built(signature, method=False), name)
    for member, node in stub.items():
        if is_dunder(member) or not isinstance(node, ast.FunctionDef) or node.decorator_list:
            continue
        if f"{name}.{member}" in WITHOUT_SIGNATURE:
            continue
        said = parameters_in_stub(node, method=True)
        if vars(built(name))[member].__text_signature__ is None:
            # At most one argument, and not by name; before 3.13 the interpreter shows none for it.
            assert [row[0] for row in said] in ([], [None]), f"{name}.{member}"
            continue
        signature = inspect.signature(vars(built(name))[member])
        assert_same(said, parameters_built(signature, method=True), f"{name}.{member}")


def test_typed_marker_ships():
    assert (FOLDER / "py.typed").is_file()


@pytest.mark.parametrize("module", ["raddle", "raddle._raddle", *MODULES])
def test_every_exported_name_imports(module):
    loaded = importlib.import_module(module)
    exported = getattr(loaded, "__all__", [])
    assert len(exported) == len(set(exported))
    assert [name for name in exported if not hasattr(loaded, name)] == []
    exec(f"from {module} import *", {})


def test_every_public_module_exports():
    missing = []
    for module in ["raddle", *MODULES]:
        if not module.rpartition(".")[2].startswith("_") and not hasattr(
            importlib.import_module(module), "__all__"
        ):
            missing.append(module)
    assert missing == []


def test_names_for_type_checkers_are_those_of_the_oldest_python():
    """`raddle.threading.__all__` is computed when it runs; what type checkers read instead has to agree with it."""
    module = importlib.import_module("raddle.threading")
    tree = ast.parse((FOLDER / "threading.py").read_text(encoding="utf-8"))
    [said] = [
        ast.literal_eval(node.value)
        for branch in tree.body
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in branch.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    assert len(said) == len(set(said))
    newer = {"setprofile_all_threads", "settrace_all_threads"} if sys.version_info >= (3, 12) else set()
    assert set(said) == set(module.__all__) - newer
