"""What holds of everything that reads what others wrote, whatever they wrote.

It ends, within a bound of work and of memory; it gives a value or one error of ours; it opens nothing outside the
folder that it was given, starts nothing, connects to nobody but this machine, and evaluates nothing but a
template. :func:`attempt` holds a reader to that, under Hypothesis and under a fuzzer alike.
"""

import os
import resource
import signal
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from synaptic.errors import SynapticError

CPU_SECONDS = 10.0
"""Of this process for one input of some KB. Work, not time: a busy machine changes nothing."""
MEMORY = 512 * 1024 * 1024
"""Bytes beyond what the process has."""
LONGEST_LINE = 4000
"""Characters of one line of a message. What others wrote is quoted, but not whole."""

ROOT = Path(__file__).parents[2]
_OURS = tuple({str(ROOT), *sysconfig.get_paths().values(), sys.base_prefix, sys.prefix, *filter(None, sys.path)})
"""Where modules and their data are: these may be opened, as imports do."""
_OF_THE_SYSTEM = ("/proc", "/sys", "/dev", "/etc/ssl", "/usr/lib/ssl", "/usr/share/zoneinfo", "/etc/mime.types")
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.truncate", "os.chmod", "os.chown", "os.link", "os.symlink")
_FORBIDDEN = (
    *("subprocess.", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.system", "os.kill", "pty."),
    *("socket.getaddrinfo", "socket.gethostby", "webbrowser.", "urllib.", "pickle."),
)
_HOMES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")

Reader = Callable[[bytes, Path], object]
"""Reads bytes, which it may put into files of the folder."""


class Endless(BaseException):
    """The bound of work is reached."""


class BrokenPromise(AssertionError):
    """A reader did what it must never do."""


class _Watch:
    """What the process did that it must not do, while it is watched. An audit hook cannot be taken away again."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        self.hooked = False

    def start(self, folder: Path) -> None:
        if not self.hooked:
            sys.addaudithook(self.hook)
            self.hooked = True
        self.seen.clear()
        self.folder = str(folder)

    def hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.folder is None:
            return
        if event == "open":
            self.opened(arguments[0])
        elif event == "compile":
            self.compiled(arguments[0])
        elif event == "socket.connect":
            address = arguments[1]
            if isinstance(address, tuple) and address[0] not in {"127.0.0.1", "::1"}:
                self.seen.append(f"connected to {address}")
        elif event in _CHANGES:
            self.opened(arguments[0], changes=True)
        elif event.startswith(_FORBIDDEN):
            self.seen.append(f"{event}{arguments}"[:300])

    def opened(self, what: object, *, changes: bool = False) -> None:
        if not isinstance(what, (str, bytes, os.PathLike)):
            return
        path = os.path.realpath(os.fsdecode(what))
        allowed = (self.folder,) if changes else (self.folder, *_OURS, *_OF_THE_SYSTEM)
        if not any(f"{path}/".startswith(f"{place}/") for place in allowed):
            self.seen.append(f"{'changed' if changes else 'opened'} {path}")

    def compiled(self, source: object) -> None:
        # Imports compile, and so do jinja2, dataclasses and named tuples, in modules of their own. We never do.
        caller = sys._getframe(2).f_code.co_filename
        if source is not None and caller.startswith(str(ROOT / "synaptic")):
            self.seen.append(f"{caller} compiled {source!r}"[:300])


_WATCH = _Watch()


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Fail at the end if something happened that must not."""
    _WATCH.start(folder)
    try:
        yield
    finally:
        _WATCH.folder = None
    if _WATCH.seen:
        raise BrokenPromise("; ".join(_WATCH.seen))


@contextmanager
def at_home(folder: Path) -> Iterator[None]:
    """Make a folder the home of whoever runs this."""
    before = {name: os.environ.get(name) for name in _HOMES}
    os.environ.update(dict.fromkeys(_HOMES, str(folder)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def bounded() -> Iterator[None]:
    """Bound work and memory of what is done inside."""

    def stop(*_: object) -> None:
        raise Endless(f"more than {CPU_SECONDS:g} s of work")

    before = signal.signal(signal.SIGPROF, stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        now = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))
    # Again and again: an event loop logs what is raised in its own callbacks, and goes on.
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, before)


def attempt(read: Reader, data: bytes, refusals: tuple[type[Exception], ...] = ()) -> None:
    """Let a reader read ``data``, and hold it to what this module says.

    Args:
        read: Is given the data and an empty folder.
        data: What somebody wrote.
        refusals: Errors of one room that its caller turns into ours.

    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(os.path.realpath(name))
        with at_home(folder), watched(folder), bounded():
            try:
                read(data, folder)
            except (SynapticError, *refusals) as error:
                refused_well(error)


def refused_well(error: BaseException) -> None:
    """Check that an error of ours can be shown, and that it does not hide that the memory was full."""
    text = str(error)
    if not text.strip():
        raise BrokenPromise(f"{type(error).__name__} says nothing") from error
    if "Traceback" in text:
        raise BrokenPromise(f"a traceback instead of words: {text[:300]}") from error
    if max(map(len, text.splitlines())) > LONGEST_LINE:
        raise BrokenPromise(f"a line of {max(map(len, text.splitlines()))} characters: {text[:300]}") from error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            raise BrokenPromise(f"the memory was full: {text[:300]}") from error
        cause = cause.__cause__ or cause.__context__
