"""A command that was nearly written: such words are no question, and asking them would cost minutes."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Final

from synaptic.text import misspelt

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

_CLOSE_ENOUGH: Final = 0.72
_MOST_WORDS: Final = 3

ELSEWHERE: Final = {
    "help": "--help",
    "version": "--version",
    "ls": "pipelines list",
    "list": "pipelines list",
    "ps": "nodes list",
    "pull": "models pull",
    "status": "doctor",
    "install": "engine install",
    "settings": "config show",
}
"""Commands of other programs -> ours."""

_ACTIONS: Final = {
    "delete": ("remove", "unset"),
    "download": ("pull",),
    "fetch": ("pull",),
    "get": ("show", "pull"),
    "list": ("show",),
    "ls": ("list", "show"),
    "ping": ("check",),
    "rm": ("remove", "unset"),
    "status": ("check", "list"),
}
"""Actions of other programs -> ours, the first of which a command has."""


_OF_PIPELINES: Final = frozenset({"graph", "show", "test", "validate"})
_OF_SETTINGS: Final = frozenset({"set", "unset"})
_PLAIN_SETTINGS: Final = frozenset({"backend", "journal", "model", "nodes", "pipeline", "retries", "theme"})
"""Names of settings that are one word; the others have a ``_``, which words of a question have not."""


def _without_its_group(action: str, rest: Sequence[str]) -> str | None:
    """Return the command whose action stands alone before what it takes: ``validate mine.yaml``, ``set model x``."""
    what = rest[0] if rest else ""
    if action in _OF_PIPELINES and len(rest) == 1 and what.lower().endswith((".yaml", ".yml")):
        return f"pipelines {action}"
    setting = what.partition("=")[0]
    if action in _OF_SETTINGS and ("_" in setting or setting in _PLAIN_SETTINGS):
        return f"config {action}"
    return None


def meant_action(typed: str, actions: Collection[str]) -> str | None:
    """Return the action of a command that was most likely meant by one that it does not have."""
    ours = next((action for action in _ACTIONS.get(typed.lower(), ()) if action in actions), None)
    return ours or near(typed, actions)


def near(typed: str, names: Iterable[str]) -> str | None:
    """Return the name that was most likely meant: it differs from the word in a letter or two."""
    ratios = {name: SequenceMatcher(None, typed, name).ratio() for name in names if misspelt(typed, name)}
    best = max(ratios, key=lambda name: ratios[name], default=None)
    return best if best is not None and ratios[best] >= _CLOSE_ENOUGH else None


def _near_command(typed: str, names: Iterable[str]) -> str | None:
    """Return the command that was most likely meant. It begins alike: other words begin questions."""
    word = typed.lower()
    return near(word, [name for name in names if name[:1] == word[:1]])


def meant_command(
    words: Sequence[str], commands: Collection[str], actions_of: Callable[[str], Collection[str]]
) -> str | None:
    """Return the command that the first words nearly are, where nothing else in them makes a question.

    Args:
        words: What was typed, without options.
        commands: The names of the commands; none of them is the first word.
        actions_of: Returns the names that may follow a command; none where it stands alone.

    Returns:
        The command as it is written, as in ``agents list``; ``None`` for a question.
    """
    if not words or len(words) > _MOST_WORDS or not words[0].isalpha():
        return None
    first, *rest = words
    if first.lower() == "help" and rest and rest[0] in commands and (rest[1:] == [] or rest[1] in actions_of(rest[0])):
        return " ".join([*rest[:2], "--help"])
    if first.lower() in ELSEWHERE and (not rest or ELSEWHERE[first.lower()].endswith(f" {first.lower()}")):
        return ELSEWHERE[first.lower()]
    if (alone := _without_its_group(first.lower(), rest)) is not None:
        return alone
    name = _near_command(first, commands)
    if name is None:
        return None
    if not rest:
        return name
    actions = actions_of(name)
    action = rest[0].lower() if rest[0].lower() in actions else _near_command(rest[0], actions)
    return None if action is None else f"{name} {action}"
