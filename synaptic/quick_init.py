"""Frozen dataclasses that are made at half the price.

``dataclasses`` fills a frozen instance through ``object.__setattr__``, which looks every attribute up by name; a step
of a run makes a dozen such instances, and that was a fifth of its cost. Setting the slots through their descriptors
keeps everything else as it is: the class is frozen, and ``replace``, ``fields``, ``==`` and ``repr`` work. The attrs
library does the same for its frozen classes.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar

__all__ = ["quick_init", "quick_replace"]

Class = TypeVar("Class", bound=type)

_FIELDS: Final[dict[type, tuple[tuple[str, ...], attrgetter[Any]]]] = {}
"""Of each class that was made so: the names of its fields, and what reads all of them at once."""


def quick_init(cls: Class) -> Class:
    """Give a frozen dataclass with slots an ``__init__`` that sets the slots directly; stands above ``@dataclass``.

    Raises:
        TypeError: If the class has what this ``__init__`` would leave out: fields without a slot, ``__post_init__``,
            default factories.
    """
    if hasattr(cls, "__post_init__") or "__slots__" not in cls.__dict__:
        raise TypeError(f"{cls.__name__} needs slots, and no __post_init__")
    names: dict[str, Any] = {}
    positional: list[str] = []
    keywords: list[str] = []
    for field in fields(cls):
        if field.default_factory is not MISSING or not field.init:
            raise TypeError(f"{cls.__name__}.{field.name} has a default factory, or is not set by __init__")
        names[f"_set_{field.name}"] = getattr(cls, field.name).__set__
        names[f"_default_{field.name}"] = field.default
        default = "" if field.default is MISSING else f"=_default_{field.name}"
        (keywords if field.kw_only else positional).append(f"{field.name}{default}")
    parameters = ", ".join(["self", *positional, *(["*", *keywords] if keywords else [])])
    body = "\n".join(f"    _set_{field.name}(self, {field.name})" for field in fields(cls))
    exec(f"def __init__({parameters}):\n{body}", names)  # noqa: S102  (made of the class's own field names, as dataclasses does)
    made = names["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__annotations__ = {field.name: field.type for field in fields(cls)} | {"return": None}
    own = tuple(field.name for field in fields(cls))
    _FIELDS[cls] = own, attrgetter(*own)
    cls.__init__ = made  # type: ignore[misc]  # the same signature, made differently
    return cls


if TYPE_CHECKING:
    from dataclasses import replace as quick_replace  # what mypy checks the fields of
else:

    def quick_replace(instance: Any, /, **changes: Any) -> Any:
        """Do what ``dataclasses.replace`` does, for less where an instance has many fields, to what is made so."""
        names, read = _FIELDS[type(instance)]
        return type(instance)(**{**dict(zip(names, read(instance), strict=True)), **changes})
