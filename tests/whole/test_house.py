"""How the rooms of the package hang together: doors, and which way dependencies point. Read from the source."""

import ast
import importlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import pytest

ROOT = Path(__file__).parents[2]
OPEN_HALLS = {"synaptic.backends", "synaptic.server"}
"""Packages whose own packages are rooms that every other room may enter: a backend is one, the gateway's APIs are."""

FLOORS = (
    ("main", "__main__"),
    ("ui",),
    ("server", "cluster"),
    ("runtime",),
    ("pipeline", "backends"),
    ("agents", "models", "settings", "waiting", "processes"),
    ("text",),
    ("messages", "shared_bounds", "bounded_names", "trace_context", "errors", "paths", "quick_init", "version"),
)
"""The dependency direction of the rooms, top to bottom. Imports go down, or stay on their floor."""

TWINS = ("synaptic.runtime.kinds", "synaptic.pipeline.kinds")
"""A kind of step is one file in each: the first of two with one name may import the second past its face."""

CIRCLES: tuple[set[str], ...] = ()
"""Modules that still import each other, a set for each circle. Shrinks only."""

NEVER = {("backends", "pipeline"), ("backends", "runtime"), ("pipeline", "backends.pool"), ("settings", "models")}


class Import(NamedTuple):
    """One ``from target import name`` at ``line`` of module ``source``."""

    source: str
    line: int
    target: str
    name: str


@cache
def modules() -> dict[str, Path]:
    found = {}
    for file in (ROOT / "synaptic").rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def is_package(module: str) -> bool:
    return modules()[module].name == "__init__.py"


@cache
def imports() -> tuple[Import, ...]:
    """Every import of ours, those for type checking and inside functions too."""
    found = []
    for module, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}:{node.lineno}: relative imports are for __init__.pyi"
                if (node.module or "").split(".")[0] == "synaptic":
                    found += [Import(module, node.lineno, node.module, alias.name) for alias in node.names]
            elif isinstance(node, ast.Import):
                found += [
                    Import(module, node.lineno, alias.name, "") for alias in node.names if alias.name == "synaptic"
                ]
    return tuple(found)


def imported_module(found: Import) -> str:
    """The module that an import reads: a name may itself be one, unless the face offers something else of that name."""
    whole = f"{found.target}.{found.name}"
    return whole if whole in modules() and found.name not in offered(found.target) else found.target


@cache
def offered(package: str) -> frozenset[str]:
    """The names in the face of a package."""
    stub = modules()[package].with_suffix(".pyi")
    if not stub.exists():
        return frozenset()
    return frozenset(alias.name for node in ast.parse(stub.read_text()).body for alias in node.names)


def door(source: str, target: str) -> str | None:
    """The package through whose face ``source`` should import what is in package ``target``; None for its own."""
    here = (source if is_package(source) else source.rpartition(".")[0]).split(".")
    there = target.split(".")
    shared = 0
    while shared < min(len(here), len(there)) and here[shared] == there[shared]:
        shared += 1
    if shared == len(there):
        return None
    first = ".".join(there[: shared + 1])
    return ".".join(there[: shared + 2]) if first in OPEN_HALLS else first


def past_the_face() -> Iterator[str]:
    for found in imports():
        module = imported_module(found)
        package = module if is_package(module) else module.rpartition(".")[0]
        entrance = door(found.source, package)
        if (found.source.rpartition(".")[0], package) == TWINS and found.source.split(".")[-1] == module.split(".")[-1]:
            continue
        if entrance is not None and entrance != module and (found.target != entrance or not is_package(module)):
            yield f"{modules()[found.source].relative_to(ROOT)}:{found.line}: {found.name} comes from {entrance}"


def test_every_package_is_entered_through_its_face():
    assert sorted(past_the_face()) == []


@pytest.mark.parametrize("package", sorted(filter(is_package, modules())))
def test_a_face_offers_what_it_lists(package):
    face = importlib.import_module(package)

    assert offered(package) == set(getattr(face, "__all__", ()))
    for name in offered(package):
        assert getattr(face, name) is not None


@cache
def definers(package: str) -> dict[str, str]:
    """The module that each name in the face of a package comes from."""
    found = {}
    stub = modules()[package].with_suffix(".pyi")
    for node in ast.parse(stub.read_text()).body if stub.exists() else ():
        for alias in node.names:
            module = ".".join(filter(None, (package, node.module)))
            whole = f"{module}.{alias.name}"
            found[alias.asname] = whole if whole in modules() else defining(module, alias.name)
    return found


def defining(module: str, name: str) -> str:
    """The module that ``from module import name`` needs: behind a face, the one where the name is defined."""
    if not is_package(module):
        return module
    whole = f"{module}.{name}"
    return definers(module).get(name, whole if whole in modules() else module)


def test_no_two_modules_import_each_other():
    """Also not in a ring of more, not in functions, and not for type checking."""
    graph = nx.DiGraph()
    graph.add_edges_from((found.source, defining(found.target, found.name)) for found in imports())
    graph.remove_edges_from(nx.selfloop_edges(graph))
    circles = [component for component in nx.strongly_connected_components(graph) if len(component) > 1]

    assert sorted(map(sorted, circles)) == sorted(map(sorted, CIRCLES))


def floor(module: str) -> int:
    room = module.split(".")[1] if "." in module else "main"
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def test_dependencies_point_down():
    up = {
        f"{modules()[found.source].relative_to(ROOT)}:{found.line}: {imported_module(found)}"
        for found in imports()
        if found.source != "synaptic" and floor(imported_module(found)) < floor(found.source)
    }

    assert sorted(up) == []


@pytest.mark.parametrize(("upper", "lower"), sorted(NEVER))
def test_some_rooms_never_meet(upper, lower):
    pairs = {(found.source, imported_module(found)) for found in imports()}

    assert not {
        pair
        for pair in pairs
        if all(f"{whole}.".startswith(f"synaptic.{part}.") for whole, part in zip(pair, (upper, lower), strict=True))
    }


TWINS_BY_TABLE = (
    {"synaptic.pipeline.kinds", "synaptic.runtime.kinds"},
    {"synaptic.ui.commands", "synaptic.ui.actions", "synaptic.backends.distributed.engine"},
    {f"synaptic.backends.{name}" for name in ("distributed", "embedded", "ollama", "pool")},
)
"""Packages whose modules have the same names on purpose: a kind, a command or a backend is a row of a table."""


def test_no_two_modules_have_one_name_unless_they_are_twins_in_a_table():
    homes: dict[str, set[str]] = {}
    for module in modules():
        if not is_package(module):
            package, _, name = module.rpartition(".")
            homes.setdefault(name, set()).add(package)

    assert {
        name: packages
        for name, packages in homes.items()
        if len(packages) > 1 and not any(packages <= twins for twins in TWINS_BY_TABLE)
    } == {}


def test_no_two_public_classes_have_one_name():
    homes: dict[str, list[str]] = {}
    for module, file in modules().items():
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(module)

    assert {name: places for name, places in homes.items() if len(places) > 1} == {}
