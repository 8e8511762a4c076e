"""Whether an engine's files are those that were built or adopted: none is another one, none came, none went.

Their digests are kept with the engine, so that they travel with its directory. A file is read only if it has changed
since it was last read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from synaptic import paths
from synaptic.errors import EngineUnavailable
from synaptic.processes import Digests

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synaptic.backends.distributed.engine.engine import EngineFiles

REGISTER: Final = "digests.json"
MOST_NAMED: Final = 3
_SAID: Final = {"changed": "has other content", "added": "was not there", "gone": "is gone"}


@dataclass(frozen=True, slots=True)
class FileState:
    """What became of a file of an engine.

    Attributes:
        name: Its path, seen from the engine's directory.
        sha256: Of its content, in hex; "" where it is gone.
        expected: What that was; "" where it was not there.
    """

    name: str
    state: Literal["whole", "changed", "added", "gone"]
    sha256: str
    expected: str


def digests_of(files: EngineFiles, *, afresh: bool = False) -> dict[str, str]:
    """Return the SHA-256 of every file of an engine. Blocking.

    ``afresh`` reads also those that have not changed.

    Raises:
        EngineUnavailable: If one cannot be read.
    """
    digests = Digests(paths.engine_dir() / REGISTER)
    read = digests.afresh if afresh else digests.of
    try:
        return {os.path.relpath(file, files.directory): read(file) for file in files.everything}
    except OSError as error:
        raise EngineUnavailable(
            f"a file of the engine cannot be read: {error.filename}: {error.strerror or error}",
            hint="see that it is there and may be read",
        ) from error


def compare(actual: Mapping[str, str], expected: Mapping[str, str]) -> list[FileState]:
    """Return what became of each file, from their digests now and then."""
    return [
        FileState(name, _state(actual.get(name), expected.get(name)), actual.get(name, ""), expected.get(name, ""))
        for name in sorted({*actual, *expected})
    ]


def describe(states: Sequence[FileState]) -> str:
    """Return which files are not as they were, and how; "" if all are."""
    changed = [f"{state.name} {_SAID[state.state]}" for state in states if state.state != "whole"]
    more = len(changed) - MOST_NAMED
    return ", ".join([*changed[:MOST_NAMED], *([f"and {more} more"] if more > 0 else [])])


def _state(actual: str | None, expected: str | None) -> Literal["whole", "changed", "added", "gone"]:
    if actual is None:
        return "gone"
    if expected is None:
        return "added"
    return "whole" if actual == expected else "changed"
