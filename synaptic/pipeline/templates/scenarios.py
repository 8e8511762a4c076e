"""What is known of a run in which something is not there: values as far as they are known, and conditions that hold."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from synaptic.pipeline.templates.values import SKIPPED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline.templates.references import Reference


class Anything:
    """A value of which nothing is known."""

    __slots__ = ()


ANYTHING: Final = Anything()


@dataclass(frozen=True, slots=True)
class Known:
    """A value that is known.

    Attributes:
        origin: What it comes from that is not there, as ``steps.check``; ``None`` of a constant.
    """

    value: Any
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping that is there, of which some fields are known."""

    known: Mapping[str, Value] = field(hash=False)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of these texts."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Truth:
    """A value of which only that is known."""

    holds: bool


Value: TypeAlias = Anything | Known | Fields | OneOf | Truth


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way that a run can go.

    Attributes:
        names: The roots of templates of which something is known.
        facts: Conditions whose outcome is known, each by its text.
    """

    names: Mapping[str, Value] = field(default_factory=dict)
    facts: Mapping[str, bool] = field(default_factory=dict)

    def with_root(self, root: str, value: Value) -> Scenario:
        """Return the scenario in which this is known of a root."""
        return replace(self, names={**self.names, root: value})

    def with_fields(self, root: str, values: Mapping[str, Value]) -> Scenario:
        """Return the scenario in which these fields of a root are known, too."""
        before = self.names.get(root)
        fields = {**(before.known if isinstance(before, Fields) else {}), **values}
        return replace(self, names={**self.names, root: Fields(fields)})

    def with_facts(self, facts: Mapping[str, bool]) -> Scenario:
        """Return the scenario in which these conditions have these outcomes, too."""
        return replace(self, facts={**self.facts, **facts})

    def tells_of(self, reference: Reference) -> bool:
        """Return whether something that the reference leads to or over is not there, or one of several values."""
        value = self.names.get(reference.root, ANYTHING)
        for name in reference.path:
            if not isinstance(value, Fields):
                break
            value = value.known.get(name, ANYTHING)
        return value is not ANYTHING and value != Fields({})

    def of_step(self, name: str) -> Value:
        """Return what is known of the output of a step."""
        steps = self.names.get("steps")
        return steps.known.get(name, ANYTHING) if isinstance(steps, Fields) else ANYTHING


class Fails(Exception):
    """The template fails in the scenario.

    Attributes:
        origin: What is not there: ``steps.check``.
        line: One-based, inside the template's text.
        token: The text to look for on that line.
    """

    def __init__(self, origin: str, line: int, token: str) -> None:
        super().__init__(origin)
        self.origin = origin
        self.line = line
        self.token = token


def followed(reference: Reference, scenario: Scenario) -> Value:
    """Return what is known of the value at the end of a plain reference.

    Raises:
        Fails: If something on the way is nothing, of which no field is asked.
    """
    value = scenario.names.get(reference.root, ANYTHING)
    for name in reference.path:
        if isinstance(value, Fields):
            value = value.known.get(name, ANYTHING)
        elif isinstance(value, Known) and value.origin is not None and value.value is SKIPPED:
            return value
        elif isinstance(value, Known) and value.origin is not None and value.value is None:
            raise Fails(value.origin, reference.line, str(reference))
        else:
            return ANYTHING
    return value
