"""The entry of the process: the only place that ends it, and the only one where every error arrives.

Nothing is imported at the top but what the interpreter has loaded anyway: an interrupt in the middle of an
import is an interrupt like any other.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130


def main() -> None:
    """Run the command line of this process and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; every error has then been shown."""
    try:
        code = _run(arguments)
    except KeyboardInterrupt:
        _write_error("interrupted")
        code = INTERRUPTED
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    return code


def _run(arguments: Sequence[str]) -> int:
    import click  # noqa: PLC0415 - see the top

    from synaptic.errors import SynapticError  # noqa: PLC0415
    from synaptic.ui.root import build_root, program_name, rewrite  # noqa: PLC0415

    for stream in (sys.stdout, sys.stderr):
        # A lone surrogate out of a model's JSON must not end the run, nor an ASCII terminal.
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    try:
        root = build_root()
        result = root.main(rewrite(root, arguments), prog_name=program_name(sys.argv[0]), standalone_mode=False)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except SystemExit:
        # `synaptic ... | head -1`: the reader has what it wanted, and this is what click makes of it.
        return 0
    except click.Abort as exc:
        raise KeyboardInterrupt from exc
    except click.ClickException as exc:
        _show_usage(exc)
        return exc.exit_code
    except SynapticError as exc:
        _show(exc)
        return int(exc.exit_code)
    except Exception as exc:  # noqa: BLE001 - the end of the line: a person gets a sentence, -v the traceback
        return _crash(exc, arguments)
    return result if isinstance(result, int) else 0


def _show_usage(error: object) -> None:
    """Print an error that click found, in the form of all others."""
    import click  # noqa: PLC0415

    from synaptic.ui.root import usage_message  # noqa: PLC0415

    assert isinstance(error, click.ClickException)
    message, hint = usage_message(error)
    _write_error(f"error: {message}")
    if hint:
        _write_error(f"hint: {hint}")


def _show(error: Exception) -> None:
    from synaptic.errors import SynapticError  # noqa: PLC0415
    from synaptic.ui.screen import show_error, stderr_console  # noqa: PLC0415

    assert isinstance(error, SynapticError)
    show_error(stderr_console(), error)


def _crash(error: Exception, arguments: Sequence[str]) -> int:
    """Print an error that nobody expected; its traceback with ``-v``."""
    from synaptic.text import one_line  # noqa: PLC0415

    verbose = any(word in {"-v", "--verbose"} for word in arguments)
    if verbose:
        import traceback  # noqa: PLC0415

        traceback.print_exception(error)
    _write_error(f"error: this is a bug: {type(error).__name__}: {one_line(str(error), 500)}")
    if not verbose:
        _write_error("hint: run it again with -v for the traceback, and please report it")
    return 1


def _write_error(line: str) -> None:
    print(line, file=sys.stderr)


def _discard_output() -> None:
    """Point stdout at nothing, so that the interpreter's own flush at exit has somewhere to go."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
