"""What the program knows while it runs: settings, conversation, session, and how a line is carried out."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from synaptic import paths, runtime
from synaptic.errors import ConfigError, ExitCode, SynapticError, UsageError
from synaptic.messages import BackendNotice
from synaptic.settings import SESSION_ORIGIN, LoadedSettings, Settings, load_settings
from synaptic.text import one_line, plural
from synaptic.ui import actions, screen
from synaptic.ui.question import read_again, read_documents
from synaptic.ui.repl.asked_questions import forget_question, record_question
from synaptic.ui.repl.conversation import Asked, Conversation, Turn
from synaptic.ui.repl.mentions import mentions
from synaptic.ui.repl.other_programs import looked_up
from synaptic.ui.repl.sessions import serves
from synaptic.ui.repl.slash_commands import Call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from synaptic.messages import Usage
    from synaptic.pipeline import Plan
    from synaptic.runtime import AskedQuestion, Event, RunResult, RunStatus, Session
    from synaptic.ui.repl.asked_questions import KeptQuestion
    from synaptic.ui.repl.conversation import TurnStatus
    from synaptic.ui.repl.screen import Screen
    from synaptic.ui.repl.sessions import SessionHolder
    from synaptic.ui.repl.slash_commands import Command, Registry

_ASKED_FOR: Final = frozenset({SESSION_ORIGIN, "-m"})
_NAMES: Final = 5
_NAME: Final = 60
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
        documents: What every question is about.
        files: Where these are: absolute paths and patterns.
        kept_as: The conversation that turns are kept in; ``None`` before its first turn.
        last_seen: The run that was begun last in it, as it was looked at before the last question.
        at_work: Whether another program was being answered in it then.
        context: How many tokens the model takes; ``None`` where that is not known.
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
        sessions.hear = self._hear
        self.conversation = Conversation()
        self.documents: Sequence[Mapping[str, str]] = ()
        self.files: Sequence[str] = ()
        self.usage: Usage | None = None
        self.last_run: RunResult | None = None
        self.kept_as: str | None = None
        self.last_seen: str | None = None
        self.at_work = False
        self.context: int | None = None
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
                await self.ask(self._with_files(meant.text))
        except SynapticError as exc:
            self.fail(exc)
        except Exception as exc:  # noqa: BLE001  (the conversation is worth more than a clean crash)
            self._crash(exc)

    def _with_files(self, text: str) -> Asked:
        """Return a question with the files that it names; only a person at a terminal names them.

        Raises:
            UsageError: If one cannot be read.
        """
        found = mentions(text) if self.screen.live else None
        if found is None or not found.files:
            return Asked(text)
        documents = read_documents(found.files)
        self.screen.note(f"with {_told(documents)}")
        return Asked(found.text, documents=documents, title=text)

    def about(self, files: Sequence[str], documents: Sequence[Mapping[str, str]]) -> None:
        """Let every question be about these files: paths, folders and patterns, and what was read there."""
        self.documents = tuple(documents)
        self.files = tuple(str(paths.expanded(file).absolute()) for file in files)
        self.screen.note(f"every question is about {_told(self.documents)}")

    def about_again(self, files: Sequence[str]) -> None:
        """Let every question be about what a conversation was about that is taken up, as these files are now."""
        if not files and self.documents:
            self.screen.note(f"no question is about {_told(self.documents)} any more")
        documents, wrong = read_again(files)
        self.documents, self.files = tuple(documents), tuple(files)
        for what in wrong:
            self.screen.warn(what)
        if documents:
            self.screen.note(f"every question is about {_told(documents)}")

    def _documents(self, asked: Asked) -> Sequence[Mapping[str, str]]:
        """Return what is asked about: the files of the conversation go before those of the question."""
        if asked.question is None or asked.again:
            return asked.documents
        return [*self.documents, *(each for each in asked.documents if each not in self.documents)]

    def fail(self, error: SynapticError) -> None:
        """Show an error and remember that the line failed."""
        self.screen.error(error)
        self.last_exit = error.exit_code

    async def session(self) -> Session:
        """Return the session for the settings that apply now."""
        return await self.sessions.get(self.settings)

    async def ask(self, asked: Asked) -> None:
        """Do what `ask_here` does, behind the last turn that any program asked in this conversation."""
        await self.catch_up()
        await self.ask_here(asked)

    async def ask_here(self, asked: Asked, *, instead: Turn | None = None) -> None:
        """Run a pipeline and keep the turn, also of a run that is interrupted or fails.

        Args:
            asked: What is asked.
            instead: The turn whose answer stays, as the conversation is kept, unless there is another.

        Raises:
            SynapticError: If the run could not begin.
        """
        ended: list[RunResult] = []
        asked = replace(asked, pipeline=asked.pipeline or self.settings.pipeline)
        recorded = record_question(self._question(asked), self.conversation, self.settings, instead=instead)
        try:
            with self.screen.run_view(self.settings.look) as view:

                def listen(event: Event) -> None:
                    if isinstance(event, runtime.RunFinished):
                        ended.append(event.result)
                    view.handle(event)

                session = await self.session()
                await session.run(
                    asked.question,
                    pipeline=asked.pipeline,
                    inputs=asked.inputs,
                    documents=recorded.question.documents,
                    conversation=self.conversation.messages(),
                    run_id=recorded.question.run_id,
                    on_event=listen,
                    **recorded.question.descent.of_turn(),
                )
                await self.sessions.ask_route(self.settings)
                self.context = await session.context_length()
        except Exception as exc:
            if not any(result.error is exc for result in ended):
                raise
        finally:
            if ended:
                self._keep(ended[0], asked, recorded)
            else:
                forget_question(recorded)
        await self.sessions.recorded()

    def _question(self, asked: Asked) -> AskedQuestion:
        descent = runtime.Descent(
            session=self.kept(),
            title=asked.title,
            files=tuple(self.files),
            last=self.last_seen,
            model=asked.model or self.named_model,
        )
        return runtime.AskedQuestion(
            run_id=runtime.new_run_id(),
            at=time.time(),
            query=asked.question,
            pipeline=asked.pipeline,
            inputs=asked.inputs,
            documents=self._documents(asked),
            descent=descent,
        )

    async def catch_up(self) -> bool:
        """Let the conversation be what other programs made of it; say that, and return whether it ends anew."""
        self.last_seen, self.at_work = None, False
        if self.kept_as is None:
            return False
        await self.sessions.recorded()
        found = looked_up(self.kept_as, self.conversation)
        self.kept_as, self.last_seen, self.at_work = found.kept_as, found.last, found.at_work
        self.conversation[:] = found.turns
        if found.note:
            self.screen.note(found.note)
        return found.ends_anew

    async def refuse_surprise(self) -> None:
        """Catch up before the last turn is changed.

        Raises:
            UsageError: If it is another one than the person has seen.
        """
        if await self.catch_up():
            raise UsageError("nothing was done: the last turn is another one now", hint="/history shows the turns")

    def kept(self) -> str:
        """Return the conversation that turns are kept in; a new one where there is none yet."""
        if self.kept_as is None:
            self.kept_as = runtime.new_run_id()
        return self.kept_as

    async def plan(self, question: str) -> Plan:
        """Return the plan for a question; no model is called.

        Raises:
            SynapticError: If the pipeline is wrong, or nothing can serve it.
        """
        session = await self.session()
        plan = await session.plan(
            question,
            pipeline=self.settings.pipeline,
            documents=self.documents,
            model=self.named_model,
            conversation=self.conversation.messages(),
        )
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

    def _keep(self, result: RunResult, asked: Asked, recorded: KeptQuestion) -> None:
        self.usage = result.usage if self.usage is None else self.usage + result.usage
        self.last_run = result
        turn = Turn(
            question=asked.title or asked.question or "",
            answer=result.text,
            status=_TURN_STATUS[result.status],
            pipeline=result.pipeline,
            run_id=result.run_id,
            at=recorded.question.at,
            asked=asked,
            error=None if result.error is None else getattr(result.error, "headline", str(result.error)),
        )
        self.conversation.append(turn)
        if recorded.kept_as != self.kept_as:
            self.kept_as = recorded.kept_as
            self.screen.note(actions.AT_ONCE)
        if isinstance(result.error, SynapticError):
            self.fail(result.error)
        elif result.error is not None:
            self._crash(result.error)
        if line := actions.how_to_go_on(result, self.settings):
            self.screen.note(f"hint: {line}")

    def _hear(self, event: Event) -> None:
        if isinstance(event, runtime.BackendReported) and isinstance(event.report, BackendNotice):
            self.screen.warn(f"{event.report.backend}: {event.report.message}")

    def _crash(self, error: Exception) -> None:
        """Show a bug of ours; its traceback with ``-v``."""
        if self.screen.verbose:
            self.screen.note("".join(traceback.format_exception(error)).rstrip())
        self.screen.error(SynapticError(screen.bug_message(error), hint="please report it"))
        self.last_exit = ExitCode.FAILED


def _told(documents: Sequence[Mapping[str, str]]) -> str:
    """Return the names of the first documents, and how long all are."""
    names = ", ".join(one_line(document["path"], _NAME) for document in documents[:_NAMES])
    more = f" and {len(documents) - _NAMES} more" if len(documents) > _NAMES else ""
    length = sum(len(document["text"]) for document in documents)
    return f"{names}{more} ({plural(length, 'character')})"


def handler(command: Command) -> Callable[[Repl, Call], Awaitable[None]]:
    """Return what carries out a command; its module is imported when it is first used."""
    module, _, function = command.handler.partition(":")
    found: Callable[[Repl, Call], Awaitable[None]] = getattr(import_module(f"{__package__}.{module}"), function)
    return found
