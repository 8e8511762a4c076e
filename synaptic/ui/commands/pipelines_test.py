"""``synaptic pipelines test``: the tests that stand in pipelines, run without a model."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Final

import click

from synaptic import paths
from synaptic.backends import known_backends
from synaptic.errors import ExitCode, PipelineError, Problem, UsageError
from synaptic.pipeline import CompileContext, Pipeline, compile_pipeline, discover_tools, examine
from synaptic.runtime import run_case
from synaptic.text import did_you_mean, plural, read_regular
from synaptic.ui.actions import found_agents
from synaptic.ui.commands.support import CliVoice
from synaptic.ui.options import json_option, tools_option, with_options
from synaptic.ui.screen import case_document, case_lines, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from synaptic.runtime import CaseOutcome
    from synaptic.ui.options import Options

_HAS_TESTS: Final = re.compile(r"^tests\s*:", re.MULTILINE)
_HAS_STEPS: Final = re.compile(r"^steps\s*:", re.MULTILINE)
LOOKED_AT_BYTES: Final = 1 << 20

_EPILOG = """\b
As in:
  synaptic pipelines test
  synaptic pipelines test mine.yaml --only short_question
  synaptic pipelines test pipelines/ --tools my_tools.py --json

\b
No model is asked: each step answers what its test writes under 'replies'. A tool without a reply
is called. Settings have no say in it.

\b
Exit codes: 0 all passed, 1 a test failed, 2 wrong usage or a mistake in a pipeline."""


@click.command(epilog=_EPILOG)
@click.argument("names", metavar="[NAME|FILE|FOLDER]...", nargs=-1)
@click.option("--only", metavar="TEST", multiple=True, help="Run the tests of this name alone; repeatable.")
@tools_option
@json_option
@with_options
def test(options: Options, names: tuple[str, ...], *, only: tuple[str, ...]) -> int:
    """Run the tests that pipelines have under 'tests', without a model.

    Of a folder, every pipeline in it that has tests; without a name, of the current folder.
    """
    world = compile_context(options, tests=True)
    found, problems = _read(_files(names or (".",)), world)
    for problem in problems:
        write_text(str(problem), sys.stderr)
    if not problems and not any(pipeline.spec.tests for _, pipeline in found):
        where = ", ".join(names) or "this folder"
        raise UsageError(
            f"there are no tests in {where}", hint="write them under 'tests' in a pipeline, or name its file"
        )
    chosen = _chosen(found, only, complete=not problems)
    outcomes = asyncio.run(_run(chosen, world, talk=not options.json))
    failed = sum(bool(outcome.mismatches) for _, _, outcome in outcomes)
    passed = len(outcomes) - failed
    if options.json:
        documents = [case_document(name, pipeline.name, outcome) for name, pipeline, outcome in outcomes]
        ok = not failed and not problems
        said = [str(problem) for problem in problems]
        write_json({"ok": ok, "passed": passed, "failed": failed, "tests": documents, "problems": said})
    elif outcomes:
        write_text(f"{plural(len(outcomes), 'test')}: {passed} ok, {failed} failed")
    if problems:
        return int(ExitCode.USAGE)
    return int(ExitCode.FAILED if failed else ExitCode.ANSWERED)


def compile_context(options: Options, *, tests: bool = False) -> CompileContext:
    """Return everything that a pipeline may name, as far as it is known without asking a backend.

    Raises:
        UsageError: If an agent's file or a module of tools is wrong.
    """
    book = found_agents(CliVoice(options))
    return CompileContext(
        agents={name: book[name] for name in book},
        tools=discover_tools(options.tools),
        backends=known_backends(),
        tests=tests,
    )


def examined(name: str, world: CompileContext) -> tuple[Pipeline | None, Sequence[Problem]]:
    """Return a pipeline if it is right, and every mistake in it, also that there is none of that name."""
    try:
        return examine(name, world)
    except PipelineError as exc:
        return None, exc.problems or [Problem(exc.message, suggestion=exc.hint)]


def _files(names: Iterable[str]) -> Iterator[str]:
    """Yield the names, and for a folder each pipeline in it that has tests."""
    for name in dict.fromkeys(names):
        folder = paths.expanded(name)
        if not paths.is_dir(folder):
            yield name
            continue
        files = sorted(path for path in folder.iterdir() if path.suffix in {".yaml", ".yml"} and path.is_file())
        yield from (str(path) for path in files if _has_tests(path))


def _has_tests(path: Path) -> bool:
    """Return whether a file looks like a pipeline with tests; a broken one does, too, and is then reported."""
    try:
        text = read_regular(path, LOOKED_AT_BYTES).decode(errors="replace")
    except OSError:
        return False
    return _HAS_TESTS.search(text) is not None and _HAS_STEPS.search(text) is not None


def _read(names: Iterable[str], world: CompileContext) -> tuple[list[tuple[str, Pipeline]], list[Problem]]:
    """Return the pipelines that are right, and every mistake in the others."""
    found: list[tuple[str, Pipeline]] = []
    problems: dict[Problem, None] = {}
    for name in names:
        pipeline, wrong = examined(name, world)
        problems.update(dict.fromkeys(wrong))
        if pipeline is not None:
            found.append((name, pipeline))
    return found, list(problems)


def _chosen(
    found: Sequence[tuple[str, Pipeline]], only: Sequence[str], *, complete: bool
) -> list[tuple[str, Pipeline, list[str]]]:
    """Return the pipelines with the tests that are to be run.

    Raises:
        UsageError: If no pipeline has a test of a name that was given, and these are ``complete``.
    """
    known = {test for _, pipeline in found for test in pipeline.spec.tests}
    problems = [
        Problem(f"there is no test {name!r}", "--only", suggestion=did_you_mean(name, known))
        for name in only
        if name not in known
    ]
    if problems and complete:
        raise UsageError.of(problems)
    return [
        (name, pipeline, [test for test in pipeline.spec.tests if not only or test in only]) for name, pipeline in found
    ]


async def _run(
    chosen: Sequence[tuple[str, Pipeline, list[str]]], world: CompileContext, *, talk: bool
) -> list[tuple[str, Pipeline, CaseOutcome]]:
    """Run the tests one after the other, and say of each how it ended."""
    outcomes = []
    for name, pipeline, tests in chosen:
        if not tests:
            continue
        compiled = compile_pipeline(pipeline, world)
        if talk:
            write_text(name)
        for one in tests:
            with redirect_stdout(sys.stderr):  # what a tool prints is no part of the outcome
                outcome = await run_case(pipeline, compiled, one)
            outcomes.append((name, pipeline, outcome))
            if talk:
                write_text("\n".join(case_lines(outcome)))
                sys.stdout.flush()  # a tool may take its time over the next one
    return outcomes
