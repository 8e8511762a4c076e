"""What all models of settings have in common: they cannot change, and a program that makes a wrong one is told so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from synaptic.errors import ConfigError, Problem
from synaptic.text import did_you_mean, explain

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_LISTED = "docs/reference/settings.md lists all that there are"


class _Explained(type(BaseModel)):  # type: ignore[misc]
    """Makes the library's own error of pydantic's where a class is called; readers of files validate by themselves."""

    def __call__(cls, /, **values: Any) -> Any:
        """Return the settings.

        Raises:
            ConfigError: With every mistake.
        """
        try:
            return super().__call__(**values)
        except ValidationError as exc:
            found = [_problem(cls.__name__, error, cls.model_fields) for error in exc.errors(include_url=False)]
            raise ConfigError.of(found) from exc


_METACLASS: dict[str, Any] = {"metaclass": _Explained}  # passed so, a type checker keeps the models' signatures


class Frozen(BaseModel, **_METACLASS):
    """Settings, or a part of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _problem(name: str, error: ErrorDetails, known: Any) -> Problem:
    """Return what is wrong, without the value: it may hold a password."""
    where, context = error["loc"], error.get("ctx", {})
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where if part != "[key]").strip(
        "."
    )
    if error["type"] == "extra_forbidden":
        suggestion = did_you_mean(str(where[-1]), known, listing=_LISTED) if len(where) == 1 else None
        return Problem(f"there is no setting {place}", name, suggestion=suggestion)
    message = "is missing" if error["type"] == "missing" else explain(error) or error["msg"]
    return Problem(f"{place} {message}".strip(), name, suggestion=context.get("suggestion"))
