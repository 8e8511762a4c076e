"""One question from the command line: run it, show it, end with the right code whatever happens."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synaptic.errors import ExitCode, SynapticError, UsageError
from synaptic.messages import Usage
from synaptic.pipeline import named_tools
from synaptic.processes import endings
from synaptic.runtime import RunFinished, RunResult, Session, run_document
from synaptic.ui.commands import load
from synaptic.ui.question import documents, parse_inputs, piped_text
from synaptic.ui.screen import (
    make_approver,
    make_renderer,
    print_plan,
    show_error,
    show_hint,
    stderr_console,
    write_json,
)
from synaptic.waiting import steady_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console

    from synaptic.pipeline import Tool
    from synaptic.runtime import Event, RunStatus
    from synaptic.settings import LoadedSettings
    from synaptic.ui.options import Options
    from synaptic.ui.screen import Renderer

SIGNAL_BASE = 128
_SHOW_CURSOR = "\x1b[?25h"


@dataclass(frozen=True, slots=True)
class Request:
    """A question with all that is needed to answer it."""

    query: str | None
    inputs: Mapping[str, Any]
    documents: Sequence[Mapping[str, str]]
    loaded: LoadedSettings
    options: Options
    tools: Mapping[str, Tool]


def ask(words: Sequence[str], options: Options) -> int:
    """Answer one question and return the exit code.

    Raises:
        UsageError: If anything that was written is wrong; nothing was run, and stdout is empty.

    """
    console = stderr_console()
    if options.quiet and options.verbose:
        raise UsageError("-q and -v contradict each other", hint="leave one of them out")
    loaded = load(options)
    inputs = parse_inputs(options.inputs)
    tools = named_tools(options.tools)
    piped = piped_text(
        lambda: show_hint(console, "waiting for standard input (Ctrl-D ends it)"), beside_words=bool(words)
    )
    query = " ".join(words).strip() or None
    request = Request(query, inputs, documents(piped, options.files), loaded, options, tools)
    return _Asking(request, console).run()


class _Asking:
    """One question on its way. ``result`` is the last thing that the run said, also when it was cancelled."""

    def __init__(self, request: Request, console: Console) -> None:
        self.request = request
        self.options = request.options
        self.console = console
        self.result: RunResult | None = None
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
        )

    async def _under_signals(self) -> None:
        with self._cancelling():
            async with self._session() as session:
                if self.options.plan:
                    await self._plan(session)
                else:
                    with redirect_stdout(sys.stderr):  # what a tool prints is no part of the answer
                        await session.run(**self._question())

    def _session(self) -> Session:
        # A plan calls nothing, so that it needs no approval either.
        accept_all = self.options.yes or self.options.plan
        return Session(
            self.request.loaded.settings,
            tools=self.request.tools,
            approver=make_approver(accept_all=accept_all, paused=self.renderer.paused),
            on_event=self._on_event,
        )

    def _question(self) -> dict[str, Any]:
        """Return what ``Session.run`` and ``Session.plan`` are asked."""
        request = self.request
        return {
            "query": request.query,
            "inputs": request.inputs,
            "documents": request.documents,
            "model": self.options.model,
        }

    async def _plan(self, session: Session) -> None:
        plan = await session.plan(**self._question())
        self.renderer.close()
        if self.options.json:
            write_json(plan.to_dict())
        else:
            print_plan(plan, sys.stdout)

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
        return SIGNAL_BASE + (self.signal or signal.SIGINT)

    def _ended(self) -> int:
        if self.options.plan:
            return int(ExitCode.ANSWERED)
        result = self.result
        assert result is not None
        if self.options.json:
            write_json(run_document(result))
        if result.error is None:
            return int(ExitCode.ANSWERED)
        if not isinstance(result.error, SynapticError):
            raise result.error
        show_error(self.console, result.error)
        return int(result.error.exit_code)

    def _document(self, status: RunStatus, error: Exception | None) -> dict[str, Any]:
        """Return the document of a question that came to no run."""
        result = RunResult(
            run_id="",
            pipeline=self.request.loaded.settings.pipeline or "",
            status=status,
            answer="",
            steps=(),
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
