"""How values look inside a template: as text that a small model reads well, and the output of a skipped step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn


class SkippedValueUsed(TypeError):
    """A calculation or an ordering needs the output of a step that was skipped."""

    def __init__(self) -> None:
        super().__init__("a step was skipped and has no output to calculate or compare with")


class Skipped:
    """The output of a step that was skipped, as templates see it: nothing, whatever is asked of it.

    It is false, empty and prints as nothing; every field and item of it is itself again, so that
    ``steps.refine.revise.key_facts`` may be written without asking whether ``refine`` ran. It equals only itself.
    Ordering it and calculating with it raise: ``steps.judge.score < 0.5`` has no answer if nothing was judged.
    There is one instance, ``SKIPPED``.
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __contains__(self, item: object) -> bool:
        return False

    def __getitem__(self, key: object) -> Skipped:
        return self

    def __str__(self) -> str:
        return ""

    def __repr__(self) -> str:
        return "SKIPPED"

    def __reduce__(self) -> str:
        return "SKIPPED"  # copies are the same object, so that ``is SKIPPED`` holds for them too

    def _refuse(self, *_: object) -> NoReturn:
        raise SkippedValueUsed

    __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __mod__ = __rmod__ = _refuse
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __pow__ = __rpow__ = _refuse
    __neg__ = __pos__ = __abs__ = __round__ = _refuse


SKIPPED: Final = Skipped()


def settled(value: Any) -> Any:
    """Return a value as data for a program: the output of a step that was skipped is ``None``."""
    if value is SKIPPED:
        return None
    if isinstance(value, Mapping):
        return {key: settled(item) for key, item in value.items()}
    return [settled(item) for item in value] if isinstance(value, (list, tuple)) else value


def present(value: Any) -> str:
    """Return a value as text that a small model reads well: lists as bullets, objects as ``key: value`` lines."""
    if value is None or value is SKIPPED:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "\n".join(_entry(key, item) for key, item in value.items() if not _is_left_out(item))
    if isinstance(value, (list, tuple)):
        return "\n".join("- " + present(item).replace("\n", "\n  ") for item in value if item is not SKIPPED)
    return str(value)


def _is_left_out(item: Any) -> bool:
    return item is None or item is SKIPPED or (isinstance(item, (str, list)) and not item)


def _entry(key: str, value: Any) -> str:
    text = present(value)
    separator = "\n" if "\n" in text or isinstance(value, (list, tuple)) else " "
    return f"{key}:{separator}{text}"
