"""What the program knows while it runs: settings, conversation, session, and how a line is carried out."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from synaptic import runtime
from synaptic.errors import ConfigError, ExitCode, SynapticError
from synaptic.settings import SESSION_ORIGIN, LoadedSettings, Settings, load_settings
from synaptic.ui import screen
from synaptic.ui.repl.conversation import Conversation, Turn
from synaptic.ui.repl.sessions import serves
from synaptic.ui.repl.slash_commands import Call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from synaptic.messages import Usage
    from synaptic.pipeline import Plan
    from synaptic.runtime import Event, RunResult, RunStatus, Session
    from synaptic.ui.repl.conversation import TurnStatus
    from synaptic.ui.repl.screen import Screen
    from synaptic.ui.repl.sessions import SessionHolder
    from synaptic.ui.repl.slash_commands import Command, Registry

_ASKED_FOR: Final = frozenset({SESSION_ORIGIN, "-m"})
_TURN_STATUS: Final[dict[RunStatus, TurnStatus]] = {
    "succeeded": "answered",
    "stopped": "stopped",
    "failed": "failed",
    "cancelled": "interrupted",
}


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the settings come from: what the program was started with, and what was set since.

    Attributes:
        changes: Setting, or ``table.entry`` -> value as ``--set`` takes it.

    """

    config_path: Path | None
    overrides: tuple[str, ...]
    flags: Mapping[str, tuple[str, Any]]
    changes: Mapping[str, str]

    def with_change(self, key: str, raw: str) -> Sources:
        """Return the sources with one more change, the last one."""
        rest = {name: value for name, value in self.changes.items() if name != key}
        return replace(self, changes={**rest, key: raw})

    def without_change(self, key: str) -> Sources:
        """Return the sources without what was set to ``key`` since the start."""
        return replace(self, changes={name: value for name, value in self.changes.items() if name != key})

    def load(self) -> LoadedSettings:
        """Return the settings that apply.

        Raises:
            ConfigError: If a change is wrong, or a file is by now.

        """
        changes = [f"{key}={raw}" for key, raw in self.changes.items()]
        return load_settings(config_path=self.config_path, overrides=self.overrides, flags=self.flags, changes=changes)


class Repl:
    """One run of the program.

    Attributes:
        loaded: The settings that apply now.
        usage: Tokens since the start; ``None`` before the first run.
        last_exit: How the last line ended.
        leaving: Whether ``/exit`` was said.

    """

    def __init__(
        self, loaded: LoadedSettings, sources: Sources, *, screen: Screen, registry: Registry, sessions: SessionHolder
    ) -> None:
        self.loaded = loaded
        self.sources = sources
        self.screen = screen
        self.registry = registry
        self.sessions = sessions
        self.conversation = Conversation()
        self.usage: Usage | None = None
        self.last_run: RunResult | None = None
        self.last_exit = ExitCode.ANSWERED
        self.leaving = False

    @property
    def settings(self) -> Settings:
        """The settings that apply now."""
        return self.loaded.settings

    @property
    def pipeline_name(self) -> str:
        """The pipeline that answers a question, as far as it is known yet."""
        return self.settings.pipeline or self.sessions.default_pipeline

    @property
    def named_model(self) -> str | None:
        """The model that the person asked for here, with ``-m`` or ``/model``; it goes before a pipeline's own."""
        return self.settings.model if self.loaded.origins.get("model") in _ASKED_FOR else None

    async def handle(self, line: str) -> None:
        """Carry out a line: a command or a question. Errors are shown; only cancellation is raised."""
        self.last_exit = ExitCode.ANSWERED
        try:
            meant = self.registry.read(line)
            if isinstance(meant, Call):
                await handler(meant.command)(self, meant)
            elif meant is not None:
                await self.ask(meant.text)
        except SynapticError as exc:
            self.fail(exc)
        except Exception as exc:  # noqa: BLE001  (the conversation is worth more than a clean crash)
            self._crash(exc)

    def fail(self, error: SynapticError) -> None:
        """Show an error and remember that the line failed."""
        self.screen.error(error)
        self.last_exit = error.exit_code

    async def session(self) -> Session:
        """Return the session for the settings that apply now."""
        return await self.sessions.get(self.settings)

    async def ask(
        self,
        question: str | None,
        *,
        pipeline: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        shown: str = "",
    ) -> None:
        """Run a pipeline and keep the turn, also of a run that is interrupted or fails.

        Args:
            question: The input ``query``; ``None`` where the pipeline takes none.
            pipeline: Default: the one that is set.
            inputs: Further inputs.
            shown: What stands for the question in the conversation, where there is none.

        Raises:
            SynapticError: If the run could not begin.

        """
        ended: list[RunResult] = []
        asked_at = time.time()
        chosen = pipeline or self.settings.pipeline
        try:
            with self.screen.run_view() as view:

                def listen(event: Event) -> None:
                    if isinstance(event, runtime.RunFinished):
                        ended.append(event.result)
                    view.handle(event)

                session = await self.session()
                await session.run(
                    question,
                    pipeline=chosen,
                    inputs=inputs,
                    model=self.named_model,
                    conversation=self.conversation.messages(),
                    on_event=listen,
                )
                await self.sessions.ask_route(self.settings)
        finally:
            for result in ended:
                self._keep(result, question or shown, asked_at)

    async def plan(self, question: str) -> Plan:
        """Return the plan for a question; no model is called.

        Raises:
            SynapticError: If the pipeline is wrong, or nothing can serve it.

        """
        session = await self.session()
        plan = await session.plan(question, pipeline=self.settings.pipeline, model=self.named_model)
        await self.sessions.ask_route(self.settings)
        return plan

    async def models(self) -> list[Any]:
        """Return the models that the backend can serve, and remember their names for completion."""
        models = await (await self.session()).models()
        self.sessions.known_models = tuple(model.name for model in models)
        return models

    def change(self, key: str, raw: str) -> None:
        """Set ``key`` for as long as the program runs.

        Raises:
            ConfigError: If key or value is wrong; nothing has changed then.

        """
        self.use(self.sources.with_change(key, raw))

    def use(self, sources: Sources) -> None:
        """Read the settings from ``sources`` and let them apply.

        Raises:
            ConfigError: If they are wrong; nothing has changed then.

        """
        before, known = self.settings, self.loaded.left_out
        try:
            self.loaded = sources.load()
        except ConfigError as exc:
            problems = [
                replace(entry, source=None) if entry.source == SESSION_ORIGIN else entry for entry in exc.problems
            ]
            raise ConfigError.of(problems) from exc
        self.sources = sources
        if self.loaded.left_out not in {"", known}:
            self.screen.warn(self.loaded.left_out)
        if not serves(before, self.settings):
            self.sessions.forget_route()

    async def aclose(self) -> None:
        """Close the session; child processes end."""
        await self.sessions.aclose()

    def _keep(self, result: RunResult, question: str, asked_at: float) -> None:
        self.usage = result.usage if self.usage is None else self.usage + result.usage
        self.last_run = result
        turn = Turn(
            question=question,
            answer=result.text,
            status=_TURN_STATUS[result.status],
            pipeline=result.pipeline,
            run_id=result.run_id,
            at=asked_at,
            error=None if result.error is None else getattr(result.error, "headline", str(result.error)),
        )
        self.conversation.add(turn)
        if isinstance(result.error, SynapticError):
            self.fail(result.error)
        elif result.error is not None:
            self._crash(result.error)

    def _crash(self, error: Exception) -> None:
        """Show a bug of ours; its traceback with ``-v``."""
        if self.screen.verbose:
            self.screen.note("".join(traceback.format_exception(error)).rstrip())
        self.screen.error(SynapticError(screen.bug_message(error), hint="please report it"))
        self.last_exit = ExitCode.FAILED


def handler(command: Command) -> Callable[[Repl, Call], Awaitable[None]]:
    """Return what carries out a command; its module is imported when it is first used."""
    module, _, function = command.handler.partition(":")
    found: Callable[[Repl, Call], Awaitable[None]] = getattr(import_module(f"{__package__}.{module}"), function)
    return found
