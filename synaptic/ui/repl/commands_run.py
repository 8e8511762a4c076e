"""Commands about agents and runs: ``/agents``, ``/plan``, ``/run``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from synaptic.ui.actions import agent_origin, found_agents, show_agents
from synaptic.ui.question import read_documents
from synaptic.ui.repl.arguments import take_word
from synaptic.ui.repl.conversation import Asked
from synaptic.ui.screen import print_plan

if TYPE_CHECKING:
    from synaptic.agents import AgentEntry
    from synaptic.ui.repl.repl import Repl
    from synaptic.ui.repl.slash_commands import Call

_INPUT_FLAGS: Final = ("-i", "--input")
_FILE_FLAGS: Final = ("-f", "--file")
_ANY_QUESTION: Final = "(your question)"


async def agents_command(repl: Repl, call: Call) -> None:
    """List the agents, or show one with its prompt."""
    words = call.words(1)
    book = found_agents(repl.screen)
    if words:
        _show_agent(repl, book.entry(words[0]))
        return
    show_agents(repl.screen, book.entries())


async def plan_command(repl: Repl, call: Call) -> None:
    """Print the plan for a question."""
    last = repl.conversation[-1].question if repl.conversation else _ANY_QUESTION
    print_plan(await repl.plan(call.rest or last), repl.screen.out)


async def run_command(repl: Repl, call: Call) -> None:
    """Run a pipeline that is not the one that is set."""
    pipeline, rest = take_word(call.rest)
    if not pipeline:
        raise call.wrong("it needs a pipeline")
    if pipeline in (*_INPUT_FLAGS, *_FILE_FLAGS):
        raise call.wrong("the pipeline comes first")
    inputs, files, question = take_options(call, rest)
    title = question or inputs.get("query") or f"/run {call.rest}"
    await repl.ask(Asked(question or None, pipeline, inputs, read_documents(files, "-f"), title=title))


def take_options(call: Call, text: str) -> tuple[dict[str, str], list[str], str]:
    """Return the inputs and files that stand before the question, and the question as it stands.

    Raises:
        UsageError: If an input is not ``KEY=VALUE`` or is given twice, or a file is not named.
    """
    inputs: dict[str, str] = {}
    files: list[str] = []
    word, rest = take_word(text)
    while word in (*_INPUT_FLAGS, *_FILE_FLAGS):
        value, rest = take_word(rest)
        if word in _FILE_FLAGS:
            if not value:
                raise call.wrong(f"{word} needs a file")
            files.append(value)
        else:
            key, equals, given = value.partition("=")
            if not key or not equals:
                raise call.wrong(f"{word} needs KEY=VALUE, not {value!r}")
            if key in inputs:
                raise call.wrong(f"the input {key!r} stands twice")
            inputs[key] = given
        text = rest
        word, rest = take_word(text)
    return inputs, files, text.removeprefix("-- ").strip()


def _show_agent(repl: Repl, entry: AgentEntry) -> None:
    agent = entry.agent
    facts = [
        ("description", agent.description),
        ("found", f"{agent_origin(entry)}, {entry.path}" if entry.path else agent_origin(entry)),
        ("model", repl.settings.agent_models.get(agent.name) or agent.model or "the one that is set"),
        ("temperature", "" if agent.temperature is None else f"{agent.temperature:g}"),
        ("max_tokens", "" if agent.max_tokens is None else str(agent.max_tokens)),
        ("output", json.dumps(agent.output.notation, ensure_ascii=False) if agent.output else "free text"),
    ]
    repl.screen.say(agent.name, bold=True)
    repl.screen.table([(f"  {name}", value) for name, value in facts if value])
    repl.screen.say()
    repl.screen.say(agent.prompt)
