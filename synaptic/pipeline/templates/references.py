"""What a template refers to, and what can be wrong with it: plain data, without Jinja2."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reference:
    """``steps.plan.questions`` on line 3 of its template: root ``steps``, path ``("plan", "questions")``."""

    root: str
    path: tuple[str, ...]
    line: int

    def __str__(self) -> str:
        return ".".join((self.root, *self.path))

    def names(self, root: str, name: str) -> bool:
        """Return whether it is to ``root.name``, to something in it, or to all that is under the root."""
        return self.root == root and self.path[:1] in {(), (name,)}

    @property
    def is_conversation(self) -> bool:
        """Whether it places the earlier turns of the conversation."""
        return self.names("run", "conversation")


@dataclass(frozen=True, slots=True)
class TemplateFinding:
    """A template that is well formed, but cannot mean what it says.

    Attributes:
        message: What is wrong, one line, without a full stop.
        line: One-based, inside the template's text.
        token: The text to look for on that line, so that the column is known.
        suggestion: What to write instead, as a clause.
        warning: Whether it may run all the same.
    """

    message: str
    line: int
    token: str
    suggestion: str | None = None
    warning: bool = False


class TemplateProblem(Exception):
    """A template is malformed, or tries what no template may; the caller knows the file.

    Attributes:
        line: One-based, inside the template's text.
        token: The text to look for on that line, where that is known.
        suggestion: What to write instead, as a clause.
        offset: Of the character in the template's text that is meant; ``None`` where only the line is known.
        others: Further problems of the same text, in the order of their lines.
    """

    def __init__(
        self,
        message: str,
        line: int,
        token: str | None = None,
        suggestion: str | None = None,
        *,
        offset: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.token = token
        self.suggestion = suggestion
        self.offset = offset
        self.others: tuple[TemplateProblem, ...] = ()
