"""Collects what is wrong with one pipeline file, each mistake once and at its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synaptic.errors import Problem
from synaptic.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from synaptic.agents import Mistake
    from synaptic.text import KeyPath, YamlDocument

__all__ = ["Report", "did_you_mean"]

MAX_PROBLEMS = 500
"""A file with more mistakes than this is probably not a pipeline: the rest is left out."""


class Report:
    """The problems of one document.

    Args:
        document: Knows where things stand.
        problems: Where they are added; several documents may share a list.
        warnings: The same for what may run all the same.

    Attributes:
        warnings: The report of what a person should look at and may run all the same.
    """

    def __init__(self, document: YamlDocument, problems: list[Problem], warnings: list[Problem] | None = None) -> None:
        self.document = document
        self.problems = problems
        self.warnings = self if warnings is None else Report(document, warnings)
        self._own: set[Problem] = set()

    def at_key(self, message: str, path: KeyPath, suggestion: str | None = None) -> None:
        """Add a problem with the entry at ``path``."""
        self.add(self.document.problem(message, path, suggestion=suggestion))

    def at_value(self, message: str, path: KeyPath, suggestion: str | None = None) -> None:
        """Add a problem with the value at ``path``."""
        self.add(self.document.problem(message, path, at_key=False, suggestion=suggestion))

    def in_text(
        self, message: str, path: KeyPath, line: int = 1, token: str | None = None, suggestion: str | None = None
    ) -> None:
        """Add a problem with ``token`` on a line of the text at ``path``."""
        place = self.document.locate(path, line, token)
        self.add(Problem(message, self.document.source, *place, suggestion))

    def at_offset(self, message: str, path: KeyPath, offset: int, suggestion: str | None = None) -> None:
        """Add a problem with a character of the text at ``path``."""
        place = self.document.inside(path, offset)
        self.add(Problem(message, self.document.source, *place, suggestion))

    def in_notation(self, path: KeyPath) -> Callable[[Mistake], Problem]:
        """Return what locates mistakes of an output shape that is written at ``path``."""

        def locate(mistake: Mistake) -> Problem:
            here = (*path, *mistake.path)
            if mistake.offset is None:
                return self.document.problem(mistake.message, here, suggestion=mistake.suggestion)
            place = self.document.inside(here, mistake.offset)
            return Problem(mistake.message, self.document.source, *place, mistake.suggestion)

        return locate

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add problems that have their place already."""
        for problem in problems:
            self.add(problem)

    def add(self, problem: Problem) -> None:
        """Add a problem, unless the same one is there."""
        if problem not in self._own and len(self._own) < MAX_PROBLEMS:
            self._own.add(problem)
            self.problems.append(problem)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._own)
