"""The standard streams as they really are: closed, full, without a reader, of any encoding, set to non-blocking.

The rest of the interface writes and reads as if they were in order. What could not be written is remembered, and the
entry of the process says it once, at the end. Little is imported that the interpreter has not loaded anyway.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from synaptic.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

IN, OUT, ERR = 0, 1, 2
_MISSING = {IN: os.O_RDONLY, OUT: os.O_RDONLY, ERR: os.O_WRONLY}
"""How /dev/null stands in for a closed stream: nothing comes in, an answer cannot be written, a message is lost."""


class _Input(io.RawIOBase):
    """A descriptor to read. One that cannot be read at all, as it was opened for writing, is at its end."""

    def __init__(self, descriptor: int) -> None:
        self.failure: OSError | None = None
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            try:
                data = os.read(self._descriptor, len(buffer))
            except BlockingIOError:
                _wait(self._descriptor, writing=False)
            except OSError as exc:
                if exc.errno == errno.EBADF:
                    return 0
                self.failure = exc
                raise
            else:
                buffer[: len(data)] = data
                return len(data)


class _Output(io.BufferedWriter):
    """A descriptor to write. The first failure is remembered, and what comes after it goes to /dev/null.

    A buffer, not the raw file below it: an interruption between a write and its return would write the same twice.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(io.FileIO(descriptor, "w", closefd=False))
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        while True:
            try:
                super().write(rest)
            except BlockingIOError as exc:
                rest = rest[exc.characters_written :]
                _wait(self.fileno(), writing=True)
            except OSError as exc:
                self._fail(exc)
                break
            else:
                break
        return len(data)

    def flush(self) -> None:
        while not self.closed:
            try:
                super().flush()
            except BlockingIOError:
                _wait(self.fileno(), writing=True)
            except OSError as exc:
                self._fail(exc)
            else:
                break

    def _fail(self, failure: OSError) -> None:
        self.failure = self.failure or failure
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self.fileno())
        os.close(nothing)


class _Text(io.TextIOWrapper):
    """Text to a descriptor; on a terminal, what it would hide is shown. Last of all: most is shown by its writers.

    Attributes:
        lossy: Whether letters were written as ``?``, because the encoding lacks them.
    """

    lossy = False

    def write(self, text: str) -> int:
        if text.isascii():
            return super().write(text)
        if not self.lossy and not self.encoding.lower().startswith("utf"):
            self.lossy = not _encodable(text, self.encoding)
        return super().write(visible(text) if self.isatty() else text)


def _encodable(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def settled() -> Iterator[None]:
    """Make the standard streams ones that may be used whatever they are, and give them back afterwards."""
    _reserve()
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = _wrapped(sys.stdin, io.BufferedReader(_Input(IN)))
    sys.stdout = _wrapped(sys.stdout, _Output(OUT))
    sys.stderr = _wrapped(sys.stderr, _Output(ERR), line_buffering=True)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def failure_of(stream: TextIO) -> OSError | None:
    """Return why a stream could not be read, or not take all that was written; ``None`` if it did, or is another's."""
    buffer = getattr(stream, "buffer", None)
    descriptor = buffer if isinstance(buffer, _Output) else getattr(buffer, "raw", None)
    if not isinstance(descriptor, _Input | _Output):
        return None
    stream.flush()
    return descriptor.failure


def lost_letters(stream: TextIO) -> str | None:
    """Return what is said where letters of an answer were written as ``?``; ``None`` where none was."""
    if not isinstance(stream, _Text) or not stream.lossy:
        return None
    how = "PYTHONIOENCODING=utf-8 keeps them"
    return f"standard output is {stream.encoding}, and '?' stands for the letters that it lacks; {how}"


def unwritten(failure: OSError) -> str:
    """Return what is said where an answer could not be written."""
    closed = failure.errno == errno.EBADF
    reason = "standard output is closed" if closed else failure.strerror or str(failure)
    return f"the answer could not be written: {reason}"


def _reserve() -> None:
    """Open what is closed of the first three descriptors: the next file that is opened would get its number."""
    for descriptor, flags in _MISSING.items():
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)  # the lowest number that is free is this one
            os.set_inheritable(descriptor, True)


def _wrapped(stream: TextIO | None, buffer: Any, *, line_buffering: bool = False) -> TextIO:
    """Return a text stream over ``buffer``, like ``stream``; ``stream`` itself if it is none of the process's own."""
    if stream is None:
        return _Text(buffer, "utf-8", errors="replace", line_buffering=line_buffering)
    try:
        own = isinstance(stream, io.TextIOWrapper) and stream.fileno() == buffer.fileno()
    except (OSError, ValueError):
        own = False
    if not own:
        return stream
    assert isinstance(stream, io.TextIOWrapper)
    stream.flush()
    return _Text(
        buffer,
        stream.encoding,
        # A lone surrogate in a model's JSON, or an ASCII terminal, must not end the run.
        errors="replace",
        line_buffering=line_buffering or stream.line_buffering,
        write_through=stream.write_through,
    )


def _wait(descriptor: int, *, writing: bool) -> None:
    """Wait until a descriptor is ready that another program, which shares it, has set to non-blocking."""
    select.select([] if writing else [descriptor], [descriptor] if writing else [], [])
