"""One pipeline file while it is compiled: what it is checked against, and the report of its mistakes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from synaptic.agents import Shape
from synaptic.errors import AgentError
from synaptic.models import did_you_mean_model, name_key
from synaptic.paths import names_model_file
from synaptic.pipeline.checking.report import Report
from synaptic.pipeline.checking.texts import Texts
from synaptic.pipeline.templates import UNKNOWN, StaticType, Value
from synaptic.settings import ADVICE, advice_for, is_trusted
from synaptic.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from synaptic.agents import Agent
    from synaptic.errors import Problem
    from synaptic.pipeline.checking.answers import Answering
    from synaptic.pipeline.graph import CompiledPipeline
    from synaptic.pipeline.spec import DefaultsSpec, InputSpec
    from synaptic.pipeline.tools import Tool
    from synaptic.text import KeyPath, YamlDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileContext:
    """What a pipeline may name.

    Attributes:
        agents: The agents that every pipeline may name.
        given_agents: Those that the caller gives: they go before all that stand in files of their own.
        agent_models: The person's own choice of model per agent (setting ``agent_models``).
        backends: The names of the backends that there are; ``None`` is not known, and then not checked.
        models: The models of the backend that calls are routed to; ``None`` is not known, and then not checked.
        model: The caller's explicit choice (``-m``): it goes before the pipeline's ``defaults.model``.
        kept: Texts that stand in the place of files of used pipelines: as they were when a run began that goes on now.
        tests: Whether the tests that stand in the files are checked, too. A run needs none of them.
        shown_only: Whether nothing of it is carried out, so that it needs nobody's trust.
    """

    agents: Mapping[str, Agent]
    given_agents: Mapping[str, Agent] = field(default_factory=dict)
    agent_models: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, Tool] = field(default_factory=dict)
    backends: Collection[str] | None = None
    models: Collection[str] | None = None
    model: str | None = None
    kept: Mapping[Path, str] = field(default_factory=dict)
    tests: bool = False
    shown_only: bool = False


class UnusablePath(Exception):
    """A path in a pipeline is not one that may be read."""

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.suggestion = suggestion


@dataclass(frozen=True, slots=True)
class UsedPipeline:
    """A pipeline that another one uses.

    Attributes:
        inputs: What it declares; ``None`` where the file could not be read or has mistakes.
        compiled: ``None`` where something in it is wrong; its problems are reported already.
        result: The type of its result.
        answers: What its steps answer, by their paths.
        absent: What the result may be where something in it was skipped.
    """

    name: str = ""
    inputs: Mapping[str, InputSpec] | None = None
    compiled: CompiledPipeline | None = None
    result: StaticType = UNKNOWN
    answers: Mapping[str, Answering] = field(default_factory=dict)
    absent: Sequence[Value] = ()


class SourceFile:
    """One pipeline file.

    Args:
        document: Knows where things stand in it.
        context: What it may name.
        use: Returns a pipeline that it uses, by the name under ``use``, compiled; raises :class:`UnusablePath`.
        defaults: What holds for every step that does not say otherwise.
        conversation: Whether earlier turns go to every call that asks the question.
        beside: The agents that stand beside the file; ``None`` for one with a mistake, which is reported.
        problems: Where mistakes are added, those of all files of one compilation.
        broken: Steps whose form was refused, by the path of their scope: what they give is not known.
        path: Where it is; ``None`` for one that the caller wrote.
    """

    def __init__(
        self,
        document: YamlDocument,
        context: CompileContext,
        use: Callable[[str], UsedPipeline],
        *,
        defaults: DefaultsSpec,
        conversation: bool,
        beside: Mapping[str, Agent | None],
        problems: list[Problem],
        warnings: list[Problem],
        broken: Mapping[KeyPath, Collection[str]],
        path: Path | None = None,
    ) -> None:
        self.defaults = defaults
        self.conversation = conversation
        self.context = context
        self.use = use
        self.report = Report(document, problems, warnings)
        self.texts = Texts(self.report)
        self.broken = broken
        self.agents: Mapping[str, Agent | None] = {**context.agents, **beside, **context.given_agents}
        self.local: Mapping[str, Agent | None] = {}
        self._models = None if context.models is None else {name_key(model) for model in context.models}
        self._checked_agents: set[str] = set()
        self._path = path
        self._text = document.text

    @property
    def trusted(self) -> bool:
        """Whether the file may call tools that the person did not name for this run."""
        path = self._path
        return self.context.shown_only or path is None or is_trusted(path.parent, path.name, self._text)

    @property
    def how_to_trust(self) -> str:
        """What to write so that it may."""
        return advice_for(self._path.parent) if self._path else ADVICE

    def find_agent(self, name: str, path: KeyPath) -> tuple[Agent | None, bool]:
        """Return the agent, and whether there is one of that name that is right; otherwise that is reported."""
        agents = self.local if name in self.local else self.agents
        if name not in agents:
            known = {**self.agents, **self.local}
            self.report.at_value(f"there is no agent {name!r}", path, did_you_mean(name, known))
        agent = agents.get(name)
        return agent, agent is not None

    def check_named_agent(self, path: KeyPath) -> None:
        """Report an agent that does not exist, of a step of which nothing else is known."""
        name = self.report.document.value
        for part in path:
            name = name.get(part) if isinstance(name, dict) else None
        if isinstance(name, str) and name.strip():
            self.find_agent(name, path)

    def check_backend(self, name: str | None, path: KeyPath) -> None:
        """Report a backend that does not exist."""
        known = self.context.backends
        if name is not None and name.strip() and known is not None and name not in known:
            self.report.at_value(f"there is no backend {name!r}", path, did_you_mean(name, known))

    def check_model(self, model: str | None, path: KeyPath, *, routed: bool = True) -> None:
        """Report a file of a folder that is not trusted, and a model that the ``routed`` backend does not have."""
        wrong = self._strange_file(model) or (self._unknown_model(model) if routed else None)
        if wrong is not None:
            self.report.at_value(wrong[0], path, wrong[1])

    def check_agent_model(self, agent: Agent, path: KeyPath, *, routed: bool = True) -> None:
        """Report the same, once for each agent, of a model of its own; files of agents are trusted apart."""
        strange = self._strange_file(agent.model) if agent.name in self.local else None
        wrong = strange or (self._unknown_model(agent.model) if routed else None)
        if wrong is None or agent.name in self._checked_agents:
            return
        self._checked_agents.add(agent.name)
        if agent.name in self.local:
            self.report.at_value(wrong[0], ("agents", agent.name, "model"), wrong[1])
        else:
            what = f"the agent {agent.name!r} wants the model {agent.model!r}, which is not there"
            self.report.at_value(what, path, "fetch it, or name another with 'model' or the setting agent_models")

    def _strange_file(self, model: str | None) -> tuple[str, str] | None:
        if not model or not names_model_file(model) or self.trusted:
            return None
        return f"the file {model!r} may not be loaded from a folder that is not trusted", self.how_to_trust

    def _unknown_model(self, model: str | None) -> tuple[str, str] | None:
        if self._models is None or self.context.models is None or not model or not model.strip():
            return None
        if name_key(model) in self._models:
            return None
        known = self.context.models
        return f"there is no model {model!r}", did_you_mean_model(model, known) or did_you_mean(model, known)


def parse_shape(notation: Mapping[str, Any], path: KeyPath, report: Report) -> Shape | None:
    """Return an output shape that is written in the pipeline, or ``None`` after reporting what is wrong with it."""
    try:
        return Shape.parse(notation, locate=report.in_notation(path))
    except AgentError as exc:
        report.extend(exc.problems)
        return None
