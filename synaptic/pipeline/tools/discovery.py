"""Where tools come from: modules that the person names, and entry points of installed packages."""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from synaptic import paths
from synaptic.errors import Problem, UsageError
from synaptic.pipeline.tools.functions import Tool, tool_name
from synaptic.text import broken_link, did_you_mean, nearest, read_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.metadata import EntryPoint
    from types import CodeType, ModuleType

GROUP: Final = "synaptic.tools"
MAX_FILE_BYTES: Final = 8 << 20
_PRIVATE: Final = "_synaptic_tools_"


def discover_tools(
    modules: Sequence[str] = (), given: Mapping[str, Tool | Callable[..., Any]] | None = None
) -> Mapping[str, Tool]:
    """Return the tools there are: those given, those of ``modules``, and those of installed packages.

    What an installed package offers (entry-point group ``synaptic.tools``) is imported when it is first asked for.

    Args:
        modules: Importable names, or paths of ``.py`` files; every ``@tool`` function in them is a tool.
        given: Tools, or functions, by name.

    Raises:
        UsageError: If a module cannot be found or imported, or has no tools; or two tools have one name.
    """
    return ToolBook(modules, given or {})


def named_tools(modules: Sequence[str]) -> dict[str, Tool]:
    """Return the tools of ``modules`` alone: what a person adds to the installed ones.

    Raises:
        UsageError: As :func:`discover_tools` does.
    """
    return collect(modules, {})


class ToolBook(Mapping[str, Tool]):
    """The tools by name. Modules that are named are imported at once, installed packages when they are asked for."""

    def __init__(
        self, modules: Sequence[str] = (), given: Mapping[str, Tool | Callable[..., Any]] | None = None
    ) -> None:
        self._tools = collect(modules, given or {})

    def __getitem__(self, name: str) -> Tool:
        """Return a tool, importing it if need be.

        Raises:
            KeyError: If there is none of that name.
            UsageError: If the package that offers it cannot be imported, or offers something else.
        """
        if name not in self._tools and name in self._named:
            _add(self._tools, _installed(self._named[name]), name)
        if name not in self._tools:
            self._load_modules()
        return self._tools[name]

    def __contains__(self, name: object) -> bool:
        if name in self._tools or name in self._named:
            return True
        self._load_modules()
        return name in self._tools

    def __iter__(self) -> Iterator[str]:
        self._load_modules()
        return iter(sorted({*self._tools, *self._named}))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @cached_property
    def _points(self) -> list[EntryPoint]:
        """What installed packages offer; names only, nothing is imported."""
        return sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))

    @cached_property
    def _named(self) -> dict[str, EntryPoint]:
        """The entry points that are one function each."""
        named: dict[str, EntryPoint] = {}
        for point in self._points:
            if point.attr and point.name not in self._tools:
                other = named.setdefault(point.name, point)
                if other.value != point.value:
                    raise _twice(point.name, f"the entry point {other.value}", f"the entry point {point.value}")
        return named

    def _load_modules(self) -> None:
        """Import the entry points that are whole modules, once: what they hold is not known before."""
        pending = [point for point in self._points if not point.attr]
        self._points[:] = [point for point in self._points if point.attr]
        for point in pending:
            for function in functions_of(_loaded(point), point.value):
                found = replace(Tool.of(function), installed=True)
                if found.name in self._named:
                    raise _twice(found.name, f"the entry point {self._named[found.name].value}", found.origin)
                _add(self._tools, found, found.name)


def collect(modules: Sequence[str], given: Mapping[str, Tool | Callable[..., Any]]) -> dict[str, Tool]:
    """Return the given tools and those of the modules, which are imported now.

    Raises:
        UsageError: If a module is missing, raises or has no tools, or two tools have one name.
    """
    tools: dict[str, Tool] = {}
    for name, value in given.items():
        _add(tools, value if isinstance(value, Tool) else Tool.of(value, name=name), name)
    for module in dict.fromkeys(modules):
        for function in functions_of(load_module(module), module):
            found = Tool.of(function)
            _add(tools, found, found.name)
    return tools


def _add(tools: dict[str, Tool], found: Tool, name: str) -> None:
    other = tools.setdefault(name, found)
    if other.function is not found.function:
        raise _twice(name, other.origin, found.origin)


def load_module(name: str) -> ModuleType:
    """Return the module called ``name``, or the one in the ``.py`` file at that path; a file is imported once.

    Raises:
        UsageError: If there is none, or importing it raises.
    """
    if name.endswith(".py") or os.sep in name:
        return _from_file(name)
    try:
        known = importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        known = False
    except Exception as exc:  # (finding a.b imports a, which may raise anything)
        raise _broken(name, exc, None) from exc
    if not known:
        raise UsageError(f"there is no module {name!r} to take tools from", hint=_how_to_write(name))
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as exc:
        raise _broken(name, exc, None) from exc


def functions_of(module: ModuleType, name: str) -> list[Callable[..., Any]]:
    """Return the functions in a module that ``@tool`` marks, in their order.

    Raises:
        UsageError: If there are none.
    """
    marked = {id(value): value for value in vars(module).values() if callable(value) and tool_name(value)}
    if not marked:
        hint = "put @tool (from synaptic import tool) before each function that pipelines may call"
        raise UsageError(f"there are no tools in {name}", hint=hint)
    return list(marked.values())


def _from_file(name: str) -> ModuleType:
    path = paths.expanded(name)
    if path.suffix != ".py" and paths.is_file(path):
        raise UsageError(
            f"{name} is no Python file", hint="name a file that ends with .py, or a module as in pkg.tools"
        )
    try:
        source = read_regular(path, MAX_FILE_BYTES)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UsageError(f"there is no file {name} to take tools from", hint=_near_file(path)) from None
    except (OSError, ValueError) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or "it is no path"
        raise UsageError(f"no tools can be taken from {name}: {reason}", hint=broken_link(path)) from exc
    if len(source) > MAX_FILE_BYTES:
        raise UsageError(f"no tools can be taken from {name}: it is longer than {MAX_FILE_BYTES >> 20} MiB")
    resolved = paths.resolved(path)
    private = _PRIVATE + hashlib.sha256(os.fsencode(resolved)).hexdigest()[:16]
    if private in sys.modules:
        return sys.modules[private]
    # A loader is named, since what a link leads to may have another ending.
    loader = _AsRead(private, str(resolved), source)
    spec = importlib.util.spec_from_file_location(private, resolved, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[private] = module  # dataclasses and annotations look their module up
    try:
        loader.exec_module(module)
    except BaseException as exc:
        del sys.modules[private]
        if isinstance(exc, (Exception, SystemExit)):
            raise _broken(name, exc, str(resolved)) from exc
        raise
    return module


class _AsRead(importlib.machinery.SourceFileLoader):
    """Runs what was read of a file, and nothing that lies compiled beside it: nobody can see what that is."""

    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  (the one module that it has)
        return self.source_to_code(self._source, self.path)


def _installed(point: EntryPoint) -> Tool:
    function = _loaded(point)
    try:
        return replace(Tool.of(function, name=point.name), installed=True)
    except UsageError as exc:
        if exc.problems:
            raise
        raise UsageError(f"the entry point {point.name} = {point.value} of {GROUP} is no function") from exc


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (Exception, SystemExit) as exc:
        raise _broken(f"the entry point {point.name} = {point.value}", exc, None) from exc


def _broken(name: str, error: BaseException, file: str | None) -> UsageError:
    """Return what importing raised, at the line that raised it: in ``file`` if it is known, else the innermost one."""
    source, line = file, None
    if isinstance(error, SyntaxError) and error.filename:
        source, line = error.filename, error.lineno
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_machinery(frame.filename)]
        own = [frame for frame in frames if frame.filename == file] or frames
        if own:
            source, line = own[-1].filename, own[-1].lineno
    return UsageError.of([Problem(f"{name} cannot be imported: {_in_a_line(error)}", source, line)])


def _in_a_line(error: BaseException) -> str:
    if isinstance(error, UsageError):
        return error.message
    text = error.msg if isinstance(error, SyntaxError) else str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_machinery(filename: str) -> bool:
    return filename.startswith("<frozen ") or filename == __file__ or f"{os.sep}importlib{os.sep}" in filename


def _how_to_write(name: str) -> str:
    """Return what may have been meant by a module that is not there."""
    file = Path(f"{name.replace('.', os.sep)}.py")
    if paths.is_file(file):
        return f"to use the file, write --tools ./{file}"
    match = nearest(name, [path.stem for path in Path().glob("*.py")])
    if match is not None:
        return f"did you mean --tools ./{match}.py?"
    return "name an installed module as in pkg.tools, or a file as in ./tools.py"


def _near_file(path: Path) -> str:
    if paths.is_dir(path):
        return "name one file in it, as in ./tools.py"
    if not paths.is_dir(path.parent):
        return f"there is no folder {path.parent}"
    if link := broken_link(path):
        return link
    names = [entry.name for entry in path.parent.glob("*.py")]
    return did_you_mean(path.name, names) if names else f"there are no .py files in {path.parent}"


def _twice(name: str, first: str, second: str) -> UsageError:
    return UsageError(
        f"two tools are called {name!r}: {first} and {second}", hint="write @tool(name=…) before one of them"
    )
