"""``synaptic runs``: what is done with a recorded run: go on with it, begin another with it, play it again."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from synaptic.errors import JournalError, OutputInvalid, RunOwned, UsageError
from synaptic.pipeline import named_tools
from synaptic.runtime import (
    Approval,
    Journal,
    RunFinished,
    RunStarted,
    Session,
    compare,
    open_questions,
    read_run_before,
    run_document,
)
from synaptic.ui import shell_values
from synaptic.ui.actions import going_on
from synaptic.ui.commands.support import CliVoice, load
from synaptic.ui.one_shot import go_on
from synaptic.ui.options import change_options, json_option, replay_options, resume_options, tools_option, with_options
from synaptic.ui.question import parse_inputs
from synaptic.ui.screen import (
    diff_data,
    diff_lines,
    make_approver,
    make_renderer,
    show_error,
    stderr_console,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.errors import SynapticError
    from synaptic.runtime import ApprovalRequest, RunBefore, RunResult
    from synaptic.ui.options import Options


@click.command()
@click.argument("run", required=False, shell_complete=shell_values.runs)
@click.option("--force", is_flag=True, help="Take the pipeline's file as it is now, if nothing would be done again.")
@resume_options
@with_options
def resume(options: Options, run: str | None, *, force: bool) -> int:
    """Go on with a run that did not come to its end: the last one, or RUN.

    RUN is an id, or the beginning or the end of one. What the run has done is taken from the journal. It goes on with
    its pipeline, its inputs, its model and its sampling as they were. -p takes another pipeline, or the changed file:
    what the changes reach is done again. --force takes the changed file only if they reach nothing that has ended.
    """
    if force and options.pipeline is not None:
        raise UsageError("-p and --force contradict each other", hint="leave one of them out")
    run_id = run or _latest_unfinished()
    if run is None:
        CliVoice(options).note(f"going on with the run {run_id}")

    async def act(session: Session) -> RunResult:
        return await session.resume(run_id, pipeline=options.pipeline, force=force)

    return go_on(options, act)


@click.command()
@click.argument("run", shell_complete=shell_values.runs)
@click.option("--at", required=True, metavar="STEP", help="The step that is done again, as in write or refine[2].rate.")
@change_options
@with_options
def fork(options: Options, run: str, at: str) -> int:
    """Begin a new run with a recorded one: what had ended before STEP is kept, STEP and what follows is done again.

    Inputs (-i), the model (-m) and settings (--set) may be others from STEP on.
    """
    inputs, settings = parse_inputs(options.inputs), _named(options)

    async def act(session: Session) -> RunResult:
        return await session.fork(run, at=at, inputs=inputs, model=options.model, settings=settings)

    return go_on(options, act)


@click.command()
@click.argument("run", shell_complete=shell_values.runs)
@click.option("-p", "--pipeline", metavar="NAME|FILE", help="The changed pipeline; default: the run's, as it was.")
@change_options
@with_options
def rerun(options: Options, run: str) -> int:
    """Run a recorded run once more with changes: only the steps that they reach are done again.

    The line of a step that is done again says what has changed.
    """
    inputs, settings = parse_inputs(options.inputs), _named(options)

    async def act(session: Session) -> RunResult:
        return await session.rerun(
            run, pipeline=options.pipeline, inputs=inputs, model=options.model, settings=settings
        )

    return go_on(options, act)


@click.command()
@click.argument("run", shell_complete=shell_values.runs)
@click.argument("step", required=False)
@click.argument("words", metavar="[ANSWER]...", nargs=-1)
@click.option("--accept", is_flag=True, help="Take what the step proposes.")
@tools_option
@with_options
def answer(options: Options, run: str, step: str | None, words: tuple[str, ...], *, accept: bool) -> None:
    """Answer what a run waits for: the question of a step, or the approval of a prompt or an output.

    Without ANSWER the terminal asks. Data is given as JSON. `synaptic runs resume` then goes on with it.
    """
    if step is None:
        raise _what_it_asks(run)
    if words and accept:
        raise UsageError("an answer and --accept contradict each other", hint="leave one of them out")
    terminal = make_approver(accept_all=accept)
    if terminal is None and not words:
        raise UsageError("there is no terminal to ask at", hint="write the answer behind the step, or --accept")
    settings, tools = load(options).settings, named_tools(options.tools)

    async def decide(request: ApprovalRequest) -> Approval:
        if words or terminal is None:
            return Approval("edited", _value(" ".join(words), request))
        return await terminal(request)

    async def work() -> str:
        async with Session(settings, tools=tools) as session:
            try:
                await session.answer(run, step, decide)
            except OutputInvalid as exc:
                raise UsageError(exc.message.replace("the reply", "the answer")) from exc
        return (await asyncio.to_thread(read_run_before, run, to_go_on=False)).run.id

    run_id = asyncio.run(work())
    CliVoice(options).note(f"kept; {going_on(run_id)}")


@click.command()
@click.argument("run", shell_complete=shell_values.runs)
@replay_options
@with_options
def replay(options: Options, run: str) -> int:
    """Show a recorded run once more as it went; nothing is contacted, and no model is called."""
    before = read_run_before(run, to_go_on=False)
    renderer = make_renderer(
        console=stderr_console(),
        out=sys.stdout,
        quiet=options.quiet,
        verbose=options.verbose,
        answer=not options.json,
    )
    result: RunResult | None = None
    try:
        renderer.handle(
            RunStarted(before.run.id, before.plan(named_tools(options.tools), shown_only=True), before.run.started)
        )
        with Journal() as journal:
            for event in journal.events(before.run):
                result = event.result if isinstance(event, RunFinished) else None
                renderer.handle(event)
    finally:
        renderer.close()
    if result is None:
        hint = going_on(before.run.id)
        raise JournalError(f"the run {before.run.id} has not come to its end", hint=hint)
    if options.json:
        write_json(run_document(result))
    if result.error is not None:
        error: SynapticError = result.error  # type: ignore[assignment]  # the journal gives no others
        show_error(stderr_console(), error)
        return int(error.exit_code)
    return 0


@click.command()
@click.argument("first")
@click.argument("second")
@json_option
@with_options
def diff(options: Options, first: str, second: str) -> None:
    """Say in what two runs differ: steps, what they were asked, and what they said."""
    one, other = (read_run_before(run, to_go_on=False) for run in (first, second))
    steps = compare(one.events, other.events)
    if options.json:
        write_json({"first": one.run.id, "second": other.run.id, "steps": diff_data(steps)})
        return
    voice = CliVoice(options)
    for line in diff_lines(steps, (one.run.id, other.run.id)):
        voice.say(line)


AGAIN: Final = (resume, fork, rerun, answer, replay, diff)
"""The commands of this file, for the group."""


def _latest_unfinished() -> str:
    """Return the last run that has not succeeded, and that no other process works on.

    Raises:
        RunOwned: If others work on all of these.
        JournalError: If there is none.
    """
    busy: RunOwned | None = None
    with Journal() as journal:
        for run in journal.runs():
            if run.status == "succeeded":
                continue
            try:
                return journal.free_run(run.id).id
            except RunOwned as exc:
                busy = busy or exc
    if busy is not None:
        raise busy
    raise JournalError("there is no run to go on with: every one that is recorded has come to its end")


def _named(options: Options) -> Sequence[str]:
    """Return the names of the settings that the command line gives."""
    return [pair.partition("=")[0].strip() for pair in options.overrides]


def _what_it_asks(run: str) -> UsageError:
    """Return what is missing in a command line that names a run alone: which of its questions is answered, and how."""
    before: RunBefore = read_run_before(run, to_go_on=False)
    questions = open_questions(before.events)
    if not questions:
        what = f"the run {before.run.id} waits for no answer"
        return UsageError(what, hint=going_on(before.run.id) if before.run.can_go_on else None)
    told = [f"{path}: {asked.question or f'approve its {asked.what}'}" for path, asked in questions.items()]
    path, asked = next(iter(questions.items()))
    answer = "ANSWER" if asked.question else "--accept"
    several = f"; or another step than {path}" if len(questions) > 1 else ""
    hint = f"write: synaptic runs answer {run} {path} {answer}{several}"
    return UsageError(f"the run {before.run.id} asks: {'; '.join(told)}", hint=hint)


def _value(text: str, request: ApprovalRequest) -> Any:
    """Return what an answer on the command line stands for.

    Raises:
        UsageError: If it must be JSON, and is none.
    """
    if request.shape is None:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        fields = ", ".join(request.shape.field_names())
        raise UsageError(f"the answer is no JSON: {exc}", hint=f"write an object with {fields}, in quotes") from exc
