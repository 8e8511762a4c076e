"""Become a program of the engine. Standard library only: this runs as a child, before the program itself.

Python ignores SIGPIPE, and what is ignored stays so through ``exec``.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Become another program, in a directory.

    Args:
        arguments: The directory, the program and its arguments.

    """
    directory, program, *rest = arguments
    os.chdir(directory)
    # llama.cpp aborts when it loses a worker: a core of several GiB in the engine's directory would help nobody.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    try:
        os.execv(program, [program, *rest])  # noqa: S606 - the command is ours; no shell is wanted
    except OSError as error:
        # A wrong architecture, a missing loader: the program's own words to the one who started it.
        os.write(2, f"{program}: {error.strerror or error}\n".encode())
        os._exit(126)


if __name__ == "__main__":  # run as a script by launcher_command
    main(sys.argv[1:])
