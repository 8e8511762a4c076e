"""One question from the command line: run it, show it, end with the right code whatever happens."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from synaptic.errors import ExitCode, JournalError, SynapticError, UsageError
from synaptic.messages import Usage
from synaptic.pipeline import Plan, named_tools
from synaptic.processes import endings
from synaptic.runtime import (
    EndedSteps,
    Journal,
    RunFinished,
    RunResult,
    Session,
    begins_its_own,
    conversation_of,
    find_session,
    new_run_id,
    run_document,
    seen_last,
    tip_of,
    turns_of,
)
from synaptic.ui.actions import AT_ONCE, how_to_go_on
from synaptic.ui.commands import load
from synaptic.ui.question import documents, parse_inputs, piped_text, read_again, refuse_no_text
from synaptic.ui.screen import (
    make_approver,
    make_renderer,
    print_plan,
    show_error,
    show_hint,
    stderr_console,
    suspendable,
    write_json,
)
from synaptic.waiting import steady_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from rich.console import Console

    from synaptic.messages import Message
    from synaptic.pipeline import Tool
    from synaptic.runtime import Event, RunStatus
    from synaptic.settings import LoadedSettings
    from synaptic.ui.options import Options
    from synaptic.ui.screen import Renderer

SIGNAL_BASE = 128
_SHOW_CURSOR = "\x1b[?25h"


Act: TypeAlias = "Callable[[Session], Awaitable[RunResult | Plan]]"
"""What is asked of a session: to run a question, to plan it, to go on with a run."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, with all that is needed to answer it."""

    act: Act
    loaded: LoadedSettings
    options: Options
    tools: Mapping[str, Tool]


class TurnPlace(NamedTuple):
    """Where a question stands among kept conversations."""

    session: str
    after: str | None = None
    conversation: tuple[Message, ...] = ()
    files: Sequence[str] = ()
    last: str | None = None


def _place(options: Options) -> TurnPlace:
    """Return the place of a question: behind the last turn of a conversation, or in one of its own."""
    if not options.go_on and options.session is None:
        return TurnPlace(new_run_id())
    with Journal() as journal:
        found = find_session(journal, options.session)
        turns, last = turns_of(journal, found), seen_last(journal, found, tip_of(journal, found))
    if not turns:
        return TurnPlace(found.id, last=last)
    return TurnPlace(found.id, turns[-1].run_id, conversation_of(turns), turns[-1].files, last)


def _begins_its_own(run_id: str, session: str) -> bool:
    with suppress(JournalError), Journal() as journal:
        return begins_its_own(journal, journal.run(run_id), session)
    return False


def ask(words: Sequence[str], options: Options) -> int:
    """Answer one question and return the exit code.

    Raises:
        UsageError: If anything that was written is wrong; nothing was run, and stdout is empty.
    """
    console = stderr_console()
    _refuse_both(options)
    loaded = load(options)
    inputs = parse_inputs(options.inputs)
    refuse_no_text(words)
    tools = named_tools(options.tools)
    piped = piped_text(lambda text: None if options.quiet else show_hint(console, text), beside_words=bool(words))
    query = " ".join(words).strip() or None
    place = _place(options)
    about, wrong = read_again(place.files)
    given = documents(piped, options.files)
    for what in [] if options.quiet else wrong:
        show_hint(console, what)
    question: dict[str, Any] = {
        "query": query,
        "inputs": inputs,
        "documents": [*about, *(each for each in given if each not in about)],
        "model": options.model,
        "conversation": place.conversation,
    }

    async def act(session: Session) -> RunResult | Plan:
        if options.plan:
            return await session.plan(**question)
        result = await session.run(
            **question, session=place.session, after=place.after, files=place.files, last=place.last
        )
        if place.last is not None and not options.quiet:
            await session.recorded()
            if _begins_its_own(result.run_id, place.session):
                show_hint(console, AT_ONCE)
        return result

    return _Asking(Request(act, loaded, options, tools), console).run()


def go_on(options: Options, act: Act) -> int:
    """Go on with a recorded run, as ``act`` asks the session to, and return the exit code; raises as :func:`ask`."""
    _refuse_both(options)
    return _Asking(Request(act, load(options), options, named_tools(options.tools)), stderr_console()).run()


def _refuse_both(options: Options) -> None:
    if options.quiet and options.verbose:
        raise UsageError("-q and -v contradict each other", hint="leave one of them out")


class _Asking:
    """One question on its way.

    Attributes:
        result: The last thing that the run said, also when it was cancelled.
        plan: What would run, where that is all that was asked.
    """

    def __init__(self, request: Request, console: Console) -> None:
        self.request = request
        self.options = request.options
        self.console = console
        self.result: RunResult | None = None
        self.plan: Plan | None = None
        self.signal: int | None = None
        self.started_at = steady_time()
        self.renderer = self._renderer()

    def run(self) -> int:
        """Return the exit code; what a program reads from stdout is written in every case."""
        try:
            asyncio.run(self._under_signals())
        except UsageError:
            raise
        except asyncio.CancelledError:
            if self.result is None or self.result.status not in {"succeeded", "stopped"}:
                return self._interrupted()
        except Exception as exc:
            if self.result is None or self.result.error is not exc:
                if self.options.json:
                    write_json(self._document("failed", exc))
                raise
        finally:
            self.renderer.close()
        return self._ended()

    def _renderer(self) -> Renderer:
        return make_renderer(
            console=self.console,
            out=sys.stdout,
            quiet=self.options.quiet,
            verbose=self.options.verbose,
            answer=not (self.options.json or self.options.plan),
            look=self.request.loaded.settings.look,
        )

    async def _under_signals(self) -> None:
        with self._cancelling(), suspendable():
            async with self._session() as session:
                with redirect_stdout(sys.stderr):  # what a tool prints is no part of the answer
                    found = await self.request.act(session)
                self.plan = found if isinstance(found, Plan) else None

    def _session(self) -> Session:
        # A plan calls nothing, so that it needs no approval either.
        accept_all = self.options.yes or self.options.plan
        return Session(
            self.request.loaded.settings,
            tools=self.request.tools,
            approver=make_approver(accept_all=accept_all, paused=self.renderer.paused),
            on_event=self._on_event,
        )

    def _on_event(self, event: Event) -> None:
        if isinstance(event, RunFinished):
            self.result = event.result
        self.renderer.handle(event)

    @contextmanager
    def _cancelling(self) -> Iterator[None]:
        """Let the first signal that tells us to end cancel this task, and the second end the process at once."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def on_signal(number: int) -> None:
            if self.signal is not None:
                leave_at_once(self.signal)
            self.signal = number
            task.cancel()

        signals = endings()
        for number in signals:
            loop.add_signal_handler(number, on_signal, number)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def _interrupted(self) -> int:
        if self.result is None:
            self.console.print("interrupted before anything was finished", style="yellow")
        if self.options.json:
            write_json(run_document(self.result) if self.result else self._document("cancelled", None))
        self._say_how_to_go_on()
        return SIGNAL_BASE + (self.signal or signal.SIGINT)

    def _ended(self) -> int:
        if self.plan is not None:
            self._print_plan(self.plan)
            return int(ExitCode.ANSWERED)
        result = self.result
        assert result is not None
        if self.options.json:
            write_json(run_document(result))
        if result.error is not None:
            if not isinstance(result.error, SynapticError):
                raise result.error
            show_error(self.console, result.error)
        self._say_how_to_go_on()
        return int(ExitCode.ANSWERED if result.error is None else result.error.exit_code)

    def _print_plan(self, plan: Plan) -> None:
        if self.options.json:
            write_json(plan.to_dict())
        else:
            print_plan(plan, sys.stdout)

    def _say_how_to_go_on(self) -> None:
        """Say how a recorded run goes on that has not come to its end."""
        if self.result is None or self.options.quiet:
            return
        if line := how_to_go_on(self.result, self.request.loaded.settings):
            show_hint(self.console, line)

    def _document(self, status: RunStatus, error: Exception | None) -> dict[str, Any]:
        """Return the document of a question that came to no run."""
        result = RunResult(
            run_id="",
            pipeline=self.request.loaded.settings.pipeline or "",
            status=status,
            answer="",
            steps=EndedSteps(),
            usage=Usage(),
            stop_reason=status,
            started_at=self.started_at,
            ended_at=steady_time(),
            error=error,
        )
        return {**run_document(result), "run_id": None}


def leave_at_once(number: int) -> None:
    """End the process without waiting for anything; child processes notice it by themselves."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{_SHOW_CURSOR}\n")
        sys.stderr.flush()
    os._exit(SIGNAL_BASE + number)
