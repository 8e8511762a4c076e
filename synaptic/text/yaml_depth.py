"""Where brackets are nested too deep, found before the parser: its own bounds differ from version to version.

libyaml looks up to 1,024 characters ahead on a line before its first event (a bracket may begin a key), and from 0.2.6
on gives up at 1,000 open brackets. Texts that our own bound refuses therefore never reach it whole.
"""

from __future__ import annotations

from typing import Any

from yaml import YAMLError
from yaml.reader import Reader
from yaml.scanner import Scanner


def cut_where_too_deep(text: str, depth: int) -> str:
    """Return ``text`` up to and with the first bracket that opens more than ``depth`` levels, or all of it.

    The brackets are those that YAML reads as such: not those of quoted, plain and block scalars and of comments.
    """
    scanner = _Scanner(Reader.NON_PRINTABLE.sub(" ", text), depth)
    try:
        while scanner.check_token():
            scanner.get_token()  # type: ignore[no-untyped-call]  # the stubs leave it open
    except _TooDeep:
        return text[: scanner.index + 1]
    except YAMLError:
        pass  # the parser says it better
    return text


class _TooDeep(Exception):
    """The bracket at the scanner's index opens one level too many."""


class _Scanner(Reader, Scanner):
    """PyYAML's own scanner in Python, with a bound that is ours."""

    def __init__(self, text: str, depth: int) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        self._depth = depth

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803  (the parent's name)
        """Take an opening bracket, if its level is allowed."""
        if self.flow_level >= self._depth:
            raise _TooDeep
        super().fetch_flow_collection_start(TokenClass)
