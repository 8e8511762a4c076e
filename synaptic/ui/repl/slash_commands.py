"""What a slash command is, and how a line is read. Dispatch, ``/help``, completion and the manual come from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from synaptic.errors import UsageError
from synaptic.text import nearest
from synaptic.ui.repl.arguments import split_words, take_word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PREFIX = "/"
ESCAPED_PREFIX = "//"
FORCE = "--force"
"""Does what would take something away from another file or conversation."""
LEAVING = frozenset({"exit", "quit"})
_LEAVES_OTHERS = frozenset({"exit()", "quit()", "exit;", "quit;", ":q", ":q!", ":wq", "\\q", ".exit", ".quit"})
"""What leaves the prompts and editors that people have in their fingers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A slash command.

    Attributes:
        name: Without the slash.
        handler: ``module:function`` of this package: a coroutine function of the program's state and the call.
        arguments: As the usage line shows them: ``[NAME]``.
        help: One line, without a full stop.
        details: What else there is to know; may be several lines.
        example: A line that a person could type.
        former: Names that the older program had -> what stands before the arguments here. They work, but neither
            help nor completion offers them.
    """

    name: str
    handler: str
    help: str
    example: str
    arguments: str = ""
    details: str = ""
    aliases: tuple[str, ...] = ()
    former: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def usage(self) -> str:
        """``/model [NAME]``."""
        return f"{PREFIX}{self.name} {self.arguments}".rstrip()


@dataclass(frozen=True, slots=True)
class Call:
    """A command as it was typed, with everything after its name as it stands.

    Attributes:
        typed: The name, where the older program had it for this; else "".
    """

    command: Command
    rest: str
    typed: str = ""

    @property
    def notice(self) -> str:
        """What to say to a person who used a name of the older program, else ""."""
        if not self.typed:
            return ""
        now = f"{PREFIX}{self.command.name} {self.command.former[self.typed]}".rstrip()
        return f"{PREFIX}{self.typed} is {now} here"

    def words(self, at_most: int) -> list[str]:
        """Return the arguments, quotes taken off.

        Raises:
            UsageError: If there are more than ``at_most``.
        """
        words = split_words(self.rest)
        if len(words) > at_most:
            raise self.wrong(f"{words[at_most]!r} is one argument too many" if at_most else "it takes no argument")
        return words

    @property
    def text(self) -> str:
        """All arguments as one text, which may be in quotes."""
        word, rest = take_word(self.rest)
        return self.rest.strip() if rest else word

    def wrong(self, message: str) -> UsageError:
        """Return the error that says what is wrong and how the command is used."""
        text = f"{PREFIX}{self.command.name}: {message}"
        return UsageError(text, hint=f"usage: {self.command.usage}   (for example {self.command.example})")


@dataclass(frozen=True, slots=True)
class Question:
    """A line that is meant for the agents."""

    text: str


class Registry:
    """The commands there are, in the order of ``/help``."""

    def __init__(self, commands: Iterable[Command]) -> None:
        self._commands = tuple(commands)
        self._by_name = {name: entry for entry in self._commands for name in (entry.name, *entry.aliases)}
        self._former = {name: entry for entry in self._commands for name in entry.former}

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands)

    def names(self) -> dict[str, Command]:
        """Return every name and alias, in order, with its command."""
        return dict(self._by_name)

    def find(self, name: str) -> Command:
        """Return the command called ``name``, with or without its slash, in any case.

        Raises:
            UsageError: If there is none; the hint names the nearest.
        """
        plain = name.removeprefix(PREFIX).lower()
        found = self._by_name.get(plain) or self._former.get(plain)
        if found is None:
            raise UsageError(f"there is no command {PREFIX}{plain}", hint=self._meant(plain))
        return found

    def read(self, line: str) -> Call | Question | None:
        """Return what a line means: a command, a question, or nothing.

        Only a slash at the start makes a command, and two of them make none: ``//x`` asks ``/x``. Blanks before it do
        not count. The words ``exit`` and ``quit``, each alone, leave as they do at other prompts, and so does what
        leaves those.

        Raises:
            UsageError: If it names a command that does not exist.
        """
        text = line.strip()
        if not text or text == PREFIX:
            return None
        if text.startswith(ESCAPED_PREFIX):
            return Question(text[len(PREFIX) :])
        if text.lower() in _LEAVES_OTHERS:
            text = min(LEAVING)
        if text.lower() in LEAVING and text.lower() in self._by_name:
            return Call(self.find(text), "")
        if not text.startswith(PREFIX):
            return Question(text)
        name, *rest = text.split(maxsplit=1)
        found, arguments = self.find(name), rest[0] if rest else ""
        typed = name.removeprefix(PREFIX).lower()
        if typed in self._by_name:
            return Call(found, arguments)
        return Call(found, f"{found.former[typed]} {arguments}".strip(), typed)

    def _meant(self, name: str) -> str:
        match = nearest(name, self._by_name)
        first = f"did you mean {PREFIX}{match}?" if match else f"{PREFIX}help lists the commands."
        return f"{first} To ask it as a question, write {ESCAPED_PREFIX}{name} …"
