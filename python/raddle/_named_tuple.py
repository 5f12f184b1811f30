"""``NamedTuple`` for raddle's own records, made without ``typing``, whose import takes as long as the rest of raddle's.

Type checkers see ``typing.NamedTuple``: each module imports that under ``TYPE_CHECKING``.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["NamedTuple"]

_NOT_COPIED = {"__annotations__", "__module__", "__qualname__", "__static_attributes__", "__firstlineno__"}


class _Maker(type):
    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
        if not bases:
            return super().__new__(cls, name, bases, body)
        fields = body["__annotations__"]
        defaults = [body[field] for field in fields if field in body]
        make: Any = namedtuple  # type checkers want a literal name
        made = make(name, fields, defaults=defaults, module=body["__module__"])
        made.__annotations__ = fields
        for attribute in body.keys() - fields.keys() - _NOT_COPIED:
            setattr(made, attribute, body[attribute])
        return made


class NamedTuple(metaclass=_Maker):
    """The base that a record names; the record is a plain tuple type."""
