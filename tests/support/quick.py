"""Check a change in a minute and a half: ``make quick``, or ``make quick ROOM=settings`` for rooms by name.

A room is a package of ``synaptic`` that has a folder of tests; ``backends.pool`` is one of its own. Without a name,
the rooms are those with a source that differs from where this branch left ``main``, committed or not.

- ruff and mypy look at everything, and ``test_house.py`` at how the rooms hang together;
- the tests of the rooms whose sources changed run whole, and every changed test file;
- then come the rooms that import a changed one directly, those with most imports first, until the time is over:
  what is left then is skipped, and the summary says how many. ``make test`` runs them.

Tests that run a real model are left out. As a plugin (``-p quick``), this module is what skips.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
SECONDS = 70.0
"""After so many seconds no further test of an importing room is started."""
HOUSE = "tests/whole/test_house.py"


def rooms() -> set[str]:
    """The packages that have a folder of tests, by their dotted names below ``synaptic``."""
    folders = [folder for folder in (ROOT / "synaptic").rglob("*") if (folder / "__init__.py").exists()]
    names = {".".join(folder.relative_to(ROOT / "synaptic").parts) for folder in folders}
    return {name for name in names if (TESTS / name.replace(".", "/")).is_dir()}


def room_of(path: str, known: Iterable[str]) -> str | None:
    """The innermost room that a file of ``synaptic/`` or ``tests/`` belongs to, if any."""
    top, _, rest = path.partition("/")
    if top not in {"synaptic", "tests"}:
        return None
    name = rest.rpartition("/")[0].replace("/", ".")
    return max((room for room in known if f"{name}.".startswith(f"{room}.")), key=len, default=None)


def tests_by_room(known: set[str]) -> dict[str, list[str]]:
    """The test files of each room, without those of rooms inside it."""
    found: dict[str, list[str]] = {room: [] for room in known}
    for file in sorted(TESTS.rglob("test_*.py")):
        path = str(file.relative_to(ROOT))
        if room := room_of(path, known):
            found[room].append(path)
    return found


def importers(changed: Iterable[str], imports: Iterable[tuple[str, str]], known: Iterable[str]) -> list[str]:
    """The rooms that import a changed one directly, the one with most imports first.

    Args:
        changed: Rooms, or modules of no room such as ``errors``.
        imports: Pairs of dotted names: a module of ours, and the one that it imports.
        known: Every room.
    """
    known = set(known)
    changed = set(changed)
    count: Counter[str] = Counter()
    for source, target in imports:
        to = room_of(target.replace(".", "/") + "/", known) or target.removeprefix("synaptic.")
        into = room_of(source.replace(".", "/") + "/", known)
        if into is not None and to in changed and into not in changed:
            count[into] += 1
    return [room for room, _ in count.most_common()]


def changed_files() -> set[str]:
    """What differs from where this branch left ``main``: commits, edits and new files."""

    def git(*arguments: str) -> list[str]:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.split("\n")[:-1] if done.returncode == 0 else []

    base = (git("merge-base", "main", "HEAD") or git("merge-base", "origin/main", "HEAD") or ["HEAD"])[0]
    return {*git("diff", "--name-only", base), *git("ls-files", "--others", "--exclude-standard")}


def imports_of_ours() -> set[tuple[str, str, int]]:
    """Every import inside the package, with its line."""
    sys.path[:0] = [str(TESTS / "whole")]
    import test_house

    return {(found.source, test_house.imported_module(found), found.line) for found in test_house.imports()}


def main(arguments: list[str]) -> int:
    """Run the checks; return the first exit code that is not 0."""
    began = time.time()
    known = rooms()
    if unknown := [name for name in arguments if name not in known]:
        print(f"no room is named {', '.join(unknown)}; there are: {', '.join(sorted(known))}", file=sys.stderr)
        return 2
    files = changed_files() if not arguments else set()
    sources = [file for file in files if file.startswith("synaptic/")]
    changed = {room for file in sources if (room := room_of(file, known))} | set(arguments)
    loose = {Path(file).stem for file in sources if file.count("/") == 1}
    more = importers(changed | loose, [pair[:2] for pair in imports_of_ours()], known)
    print(f"changed: {', '.join(sorted(changed | loose)) or 'no room'}; imported by: {', '.join(more) or 'no room'}")
    here = tests_by_room(known)
    edited = [file for file in sorted(files) if Path(file).name.startswith("test_") and (ROOT / file).exists()]
    own = list(dict.fromkeys([HOUSE, *edited, *(file for room in sorted(changed) for file in here[room])]))
    others = [file for room in more for file in here[room]]
    checks = [
        [sys.executable, "-m", "ruff", "check", "-q", "."],
        [sys.executable, "-m", "ruff", "format", "--check", "-q", "."],
        [sys.executable, "-m", "mypy"],
        [
            *(sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"),
            *("-m", "not real_model", "-p", "quick", *own, *others),
        ],
    ]
    environ = {
        **os.environ,
        "QUICK_OTHERS": os.pathsep.join(others),
        "QUICK_END": str(began + SECONDS),
        "PYTHONPATH": os.pathsep.join([str(TESTS / "support"), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    for check in checks:
        code = subprocess.run(check, cwd=ROOT, env=environ, check=False).returncode
        if code:
            return code
    print(f"quick: {time.time() - began:.0f} s")
    return 0


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test of an importing room once the time is over."""
    others = os.environ["QUICK_OTHERS"].split(os.pathsep)
    if time.time() > float(os.environ["QUICK_END"]) and str(item.path.relative_to(ROOT)) in others:
        pytest.skip("the time is over; `make test` runs this")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
