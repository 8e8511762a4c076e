"""Look for inputs that break a promise, for as long as you like: ``make fuzz``, ``make fuzz MINUTES=60 TARGET=http``.

Each target and property of ``fuzz_targets.py`` runs in a process of its own under Atheris, which sees which lines an
input reaches, and goes on from the inputs that reach new ones: they are kept in ``build/fuzz/TARGET/``, for the next
time. An input that breaks a promise is saved in ``build/fuzz/``, and shown with the command that tries it again. Mend
the kind, not the instance, and put the input into ``tests/corpus/TARGET/`` under a name that says what it is.

    python tests/support/fuzz.py MINUTES [TARGET ...]     share the minutes among the targets (all of them)
    python tests/support/fuzz.py --try TARGET FILE ...    try inputs
"""

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]
KEPT = ROOT / "build" / "fuzz"
sys.path[:0] = [str(ROOT), str(SUPPORT)]
SECONDS_AN_INPUT = 60
"""After so many seconds an input hangs, whatever it waits for."""
MEMORY_MB = 2048
LONGEST = 4096
"""Bytes of an input that is made up."""


def main(arguments: list[str]) -> int:
    """Do what the command line says; return the exit code."""
    match arguments:
        case ["--try", name, *files] if files:
            return try_out(name, [Path(file) for file in files])
        case ["--run", name, *options]:
            run(name, options)
            return 0
        case [minutes, *names] if minutes.replace(".", "", 1).isdigit():
            return fuzz(float(minutes), names)
    print(__doc__, file=sys.stderr)
    return 2


def try_out(name: str, files: list[Path]) -> int:
    """Try inputs; one that breaks a promise ends this with its traceback."""
    from fuzz_targets import reader

    for file in files:
        reader(name)(file.read_bytes())
        print(f"{file}: keeps what is promised")
    return 0


def run(name: str, options: list[str]) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["synaptic", "yaml", "jinja2"]):
        from fuzz_targets import reader

        atheris.Setup([name, *options], reader(name))
        atheris.Fuzz()  # within the block, since much is imported when it is first needed


def fuzz(minutes: float, names: list[str]) -> int:
    """Fuzz the named targets, or all, one after the other."""
    from fuzz_targets import PROPERTIES, TARGETS

    every = [*TARGETS, *PROPERTIES]
    if unknown := [name for name in names if name not in every]:
        print(f"there is no target {unknown[0]!r}; there are {', '.join(every)}", file=sys.stderr)
        return 2
    if find_spec("atheris") is None:
        print(
            "Atheris is not here: it is built for Linux on x86-64 only. Hypothesis tries the same targets:\n"
            "  TESTS=thorough .venv/bin/python -m pytest tests/whole/test_fuzz.py",
            file=sys.stderr,
        )
        return 1
    chosen = names or every
    seconds = max(1, round(minutes * 60 / len(chosen)))
    print(f"{seconds} s for each of {', '.join(chosen)}", flush=True)
    broken = [name for name in chosen if not kept_its_promise(name, seconds)]
    return 1 if broken else 0


def kept_its_promise(name: str, seconds: int) -> bool:
    """Fuzz one target in a process of its own, say what came of it, and return whether nothing was found."""
    from fuzz_targets import TARGETS, seeds

    kept = KEPT / name
    kept.mkdir(parents=True, exist_ok=True)
    before = set(KEPT.glob(f"{name}-*"))
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder) / "words"
        pieces = TARGETS[name].pieces if name in TARGETS else (b"\0",)  # it wants one word at least
        words.write_text("".join(f'"{escaped(piece)}"\n' for piece in pieces if len(piece) <= 60))
        beginnings = Path(folder) / "seeds"
        beginnings.mkdir()
        for number, path in enumerate(seeds(name)):
            (beginnings / f"{number}-{path.name}").write_bytes(path.read_bytes())
        command = [
            *(sys.executable, __file__, "--run", name, str(kept), str(beginnings), f"-dict={words}"),
            *(f"-max_total_time={seconds}", f"-timeout={SECONDS_AN_INPUT}", f"-rss_limit_mb={MEMORY_MB}"),
            f"-report_slow_units={SECONDS_AN_INPUT}",
            *(f"-artifact_prefix={KEPT / name}-", f"-max_len={LONGEST}", "-print_final_stats=1", "-verbosity=0"),
        ]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    log = KEPT / f"{name}.log"
    log.write_text(ended.stdout + ended.stderr, encoding="utf-8")
    tried = next((line.split()[-1] for line in ended.stderr.splitlines() if "number_of_executed_units" in line), "?")
    found = sorted(set(KEPT.glob(f"{name}-*")) - before)
    print(f"{name}: {tried} inputs tried, {len(list(kept.iterdir()))} kept in {kept.relative_to(ROOT)}", flush=True)
    if ended.returncode == 0 and not found:
        return True
    print(f"{name}: BROKEN (all of it: {log.relative_to(ROOT)})")
    print(*[f"    {line}" for line in last_words(ended.stdout + ended.stderr)], sep="\n")
    for file in found:
        print(f"  again: {sys.executable} {Path(__file__).relative_to(ROOT)} --try {name} {file.relative_to(ROOT)}")
    return False


def last_words(text: str) -> list[str]:
    """Return what of a log says what was wrong."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if "Uncaught Python exception" in line), None)
    if start is None:
        return lines[-12:]
    end = next((number for number in range(start, len(lines)) if lines[number].startswith("==")), len(lines))
    return lines[start + 1 : end][-12:]


def escaped(piece: bytes) -> str:
    """Return a word as libFuzzer's dictionaries have it."""
    return "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in piece)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:  # in the home of who started it
        sys.exit(main(sys.argv[1:]))
    with tempfile.TemporaryDirectory() as state:
        os.environ["XDG_STATE_HOME"] = state  # runs that are made up do not belong into a person's record
        sys.exit(main(sys.argv[1:]))
