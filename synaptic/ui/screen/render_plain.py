"""A run as plain lines, for files, pipes and terminals that cannot do more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from synaptic.messages import BackendNotice, BackendProgress
from synaptic.runtime import (
    ApprovalAsked,
    ApprovalGiven,
    BackendReported,
    ConversationShortened,
    InputDivided,
    PromptShortened,
    RunFinished,
    RunStarted,
    StepAsked,
    StepContinued,
    StepFinished,
    StepRepaired,
    StepRetried,
    StepStarted,
    StepSummarised,
    StepThinking,
    StepThought,
    TokenDelta,
)
from synaptic.text import one_line, plural, printable, seconds, size
from synaptic.ui.screen.run_view import (
    CALLING,
    RunView,
    continuation,
    decided,
    divided,
    fewer_turns,
    place,
    retry,
    shortening,
    whole_rate,
)
from synaptic.waiting import steady_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from synaptic.errors import Problem
    from synaptic.runtime import Event, RunResult, StepResult
    from synaptic.ui.screen.run_view import StepView

_PERCENT_STEP: Final = 25
_STATE_WORDS: Final = {"succeeded": "done", "cancelled": "interrupted"}


class QuietStatus:
    """Says nothing, but that a run was interrupted or stopped."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._held: list[tuple[str, str]] | None = None
        self._held_before = False

    def update(self, event: Event) -> None:
        """Take note of an event."""
        if isinstance(event, RunFinished) and event.result.status in {"cancelled", "stopped"}:
            self.say(summary(event.result), "yellow")

    def say(self, line: str, style: str = "") -> None:
        """Print one line, now or when the answer is complete. Markup in it is text."""
        if self._held is not None:
            self._held.append((line, style))
        else:
            self._console.print(Text(printable(line), style), soft_wrap=not self._console.is_terminal)

    @property
    def holds(self) -> bool:
        """Whether lines are kept back now."""
        return self._held is not None

    def hold(self) -> None:
        """Keep lines back from now on: the answer is being written. May be called again and again."""
        if self._held is None:
            self._held = []

    def release(self) -> None:
        """Print what was kept back."""
        held, self._held = self._held or [], None
        for line, style in held:
            self.say(line, style)

    def pause(self) -> None:
        """Give the terminal away: nothing is written until :meth:`resume`."""
        self._held_before = self.holds
        QuietStatus.hold(self)

    def resume(self) -> None:
        """Take the terminal back, and print what was kept back meanwhile, unless the answer is still being written."""
        if not self._held_before:
            QuietStatus.release(self)

    def settle(self, event: RunFinished) -> None:
        """Show the last state of the steps; the answer comes next, and then the event itself."""

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.release()


class PlainStatus(QuietStatus):
    """One line for whatever happens."""

    def __init__(self, console: Console, *, verbose: bool) -> None:
        super().__init__(console)
        self.view = RunView()
        self.verbose = verbose
        self._progress: dict[str, int] = {}
        self._warned: set[Problem] = set()

    def update(self, event: Event) -> None:
        """Print the line for an event, if it deserves one."""
        self.view.apply(event)
        if isinstance(event, TokenDelta | StepAsked | StepThinking | StepSummarised):
            return
        if isinstance(event, RunStarted):
            self._run_started(event)
        elif isinstance(event, StepStarted):
            self.say(started_line(event, self.view.get(event.path)), "dim")
        elif isinstance(event, StepFinished):
            self.finished(event.result)
        elif isinstance(event, BackendReported):
            self._reported(event)
        elif isinstance(event, InputDivided):
            self.say(divided(event.input), "yellow")
        elif isinstance(event, ConversationShortened):
            self.say(fewer_turns(event), "yellow")
        elif isinstance(event, RunFinished):
            self.ended(event.result)
        else:
            self.say(incident(event), "dim" if isinstance(event, ApprovalGiven) else "yellow")

    def finished(self, result: StepResult) -> None:
        """Print how a step ended."""
        style = "red" if result.status == "failed" else ""
        several = self.view.route is not None and self.view.route.node not in {None, result.node}
        node = result.node if several else None  # one of a pool's nodes
        self.say(finished_line(result, self.view.get(result.id), verbose=self.verbose, node=node), style)

    def ended(self, result: RunResult) -> None:
        """Print how the run ended; without an answer also what it found, which is none and belongs on no stdout."""
        for path, text in self.view.findings(result):
            self.say(f"output of {path}:", "dim")
            self.say(text)
        style = {"succeeded": "dim", "cancelled": "yellow", "stopped": "yellow"}.get(result.status, "red")
        self.say(summary(result), style)

    def _run_started(self, event: RunStarted) -> None:
        self.view = RunView()
        self.view.apply(event)
        self.warn(event.plan.compiled.warnings)
        if self.verbose:
            self.say(route_line(self.view), "dim")

    def warn(self, warnings: Sequence[Problem]) -> None:
        """Print the first new warning of a pipeline's file, and where the others are: each is said once."""
        new = [warning for warning in warnings if warning not in self._warned]
        self._warned.update(new)
        if new:
            more = f" (and {len(new) - 1} more: see pipelines validate)" if len(new) > 1 else ""
            self.say(f"{new[0].location}: warning: {new[0].clause}{more}", "yellow")

    def _reported(self, event: BackendReported) -> None:
        report = event.report
        if isinstance(report, BackendNotice):
            self.say(f"{report.backend}: {report.message}", "yellow" if report.level == "warning" else "dim")
        elif (line := self._progress_line(report)) is not None:
            self.say(line, "dim")

    def _progress_line(self, report: BackendProgress) -> str | None:
        """Return a line for the start and for each further quarter, else ``None``."""
        share = min(100 * report.done // report.total, 100) if report.total else 0
        share -= share % _PERCENT_STEP
        if self._progress.get(report.label, -1) >= share:
            return None
        self._progress[report.label] = share
        return f"{report.label}: {share} % of {size(report.total)}" if report.total else f"{report.label} …"


def started_line(event: StepStarted, step: StepView) -> str:
    """Return ``plan: started (planner, embedded/smollm2)``."""
    times = ""
    if event.width is not None:
        times = f"at most {plural(event.width, 'round')}" if event.kind == "repeat" else f"{event.width} ×"
    about = ", ".join(part for part in (times, step.what, step.where) if part)
    return f"{event.path}: started ({about})" if about else f"{event.path}: started"


def incident(
    event: StepRetried | StepContinued | StepRepaired | StepThought | PromptShortened | ApprovalAsked | ApprovalGiven,
) -> str:
    """Return the line for what happens to a step between its start and its end."""
    match event:
        case StepRetried():
            wait = f" in {seconds(event.delay)}" if event.delay else ""
            what = f"{retry(event)}{wait}: {one_line(event.error)}"
        case StepContinued():
            what = continuation(event)
        case StepThought():
            what = "its text so far was thinking"
        case StepRepaired():
            what = f"asked again: {one_line(event.reason)}"
        case PromptShortened():
            what = shortening(event)
        case ApprovalAsked():
            asks = event.what == "answer"
            what = "waits for an answer" if asks else f"waits for approval of its {event.what}"
        case ApprovalGiven():
            what = decided(event)
    return f"{event.path}: {what}"


def finished_line(result: StepResult, step: StepView, *, verbose: bool, node: str | None = None) -> str:
    """Return ``plan: done, 45 tokens, 52 tok/s, 0.9 s``; with the node where it is worth a word."""
    now = steady_time()
    rate, elapsed, tokens = step.rate(now), step.elapsed(now), step.total_tokens
    parts = [
        _STATE_WORDS.get(step.state, step.state),
        plural(tokens, "token") if tokens else "",
        f"{rate:.0f} tok/s" if rate else "",
        seconds(elapsed) if elapsed is not None else "",
        f"at {node.removeprefix('http://')}" if node else "",
        measurements(step) if verbose else "",
        step.note,
    ]
    return f"{result.id}: {', '.join(part for part in parts if part)}"


def measurements(step: StepView) -> str:
    """Return what ``-v`` adds to a call: the size of its prompt, the time to its first token."""
    parts = [f"prompt {plural(step.prompt_tokens, 'token')}"] if step.prompt_tokens else []
    if step.first_token is not None and step.started is not None:
        parts.append(f"first token after {step.first_token - step.started:.2f} s")
    return ", ".join(parts)


def route_line(view: RunView) -> str:
    """Return the row of the routing table that applied."""
    route = view.route
    if route is None:
        return ""
    where = place(route.backend, route.model, route.node)
    return f"pipeline {view.pipeline}, route: {where} ({route.reason})"


def summary(result: RunResult) -> str:
    """Return the one line that ends a run."""
    if result.status == "cancelled":
        return interruption(result)
    took = result.ended_at - result.started_at
    calls = sum(step.attempts for step in result.steps if step.kind in CALLING and not step.cached)
    cached = sum(step.cached for step in result.steps)
    reused = sum(step.reused for step in result.steps)
    how = {"failed": "failed after ", "stopped": "stopped after "}.get(result.status, "")
    rate = whole_rate(result.steps)
    parts = [
        f"{result.pipeline}: {how}{seconds(took)}",
        _used_up(result),
        plural(calls, "call"),
        f"{plural(cached, 'answer')} from the cache" if cached else "",
        f"{plural(reused, 'step')} from the journal" if reused else "",
        plural(result.usage.completion_tokens, "token"),
        f"{rate:.0f} tok/s" if rate else "",
        _served_by(result),
        "the answer was cut at its token limit" if result.stop_reason == "length" else "",
    ]
    return " · ".join(part for part in parts if part)


def _used_up(result: RunResult) -> str:
    """Return which bound ended the run, if one did."""
    if result.status != "stopped":
        return ""
    kind, _, what = result.stop_reason.partition(": ")
    return f"the budget of {what} is used up" if kind == "budget" and what else result.stop_reason


def interruption(result: RunResult) -> str:
    """Return the line that ends an interrupted run: what was finished, what was not."""
    done = [step.id for step in result.steps if step.status == "succeeded"]
    begun = sorted(result.steps, key=lambda step: result.ended_at if step.started_at is None else step.started_at)
    cut = [step.id for step in begun if step.status == "cancelled" and not step.stop_reason]
    parts = [
        f"interrupted after {seconds(result.ended_at - result.started_at)}",
        f"finished: {', '.join(done) or 'nothing'}",
        f"cut off: {', '.join(cut)}" if cut else "",
    ]
    return "; ".join(part for part in parts if part)


def _served_by(result: RunResult) -> str:
    """Return the models that served the run, each once."""
    pairs = {(step.model, step.backend): None for step in result.steps if step.backend}
    return ", ".join(f"{model} on {backend}" if model else str(backend) for model, backend in pairs)
