"""Arguments of the library of another kind than it takes: each is refused by name, before anything is done."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from synaptic import (
    Agent,
    JournalError,
    Pipeline,
    Pool,
    ScriptedBackend,
    Session,
    Settings,
    UsageError,
    load_settings,
    run,
)

OFF = Settings(journal="off")


def session(**given: Any) -> Session:
    return Session(**{"settings": OFF, "backend": ScriptedBackend(["Yes."]), **given})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("settings", [{"model": "x"}, "x"]),
        ("backend", ["embedded", 3, ScriptedBackend]),
        ("agents", [["poet"], "poet", {"poet": "You write."}, 3]),
        ("steady", [["poet"], "poet"]),
        ("tools", [[len], {"len": "len"}, {1: len}, "len", 3]),
        ("approver", ["yes", True]),
        ("priority", ["high", 3, None, []]),
        ("runs_at_once", ["2", None]),
        ("on_event", ["print", 3]),
    ],
)
def test_a_session_says_what_it_takes(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(UsageError, match=f"^{name} must be .*; it is ") as caught:
            session(**{name: value})
        assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("pipeline", [3, ["answer"], {"name": "x"}, b"answer"]),
        ("inputs", ["rounds=2", ["rounds"], 3, [("rounds", 1)], {1: 2}]),
        ("documents", [3]),
        ("model", [3, ["a"], True]),
        ("conversation", ["Hello", [("user", "Hello")], [{"role": "user", "content": "Hello"}], 3]),
        ("session", [3]),
        ("after", [3]),
        ("title", [3]),
        ("files", ["notes.txt", 3, [3]]),
        ("run_id", [3]),
        ("on_event", ["print", 3]),
    ],
)
async def test_a_run_says_what_it_takes(name: str, values: list[Any]) -> None:
    async with session() as opened:
        for value in values:
            with pytest.raises(UsageError, match=f"^{name} must be .*; it is "):
                await opened.run("Why?", **{"pipeline": "answer", name: value})


async def test_nothing_is_none() -> None:
    nothing: Any = None
    async with session() as opened:
        done = await opened.run("Why?", pipeline="answer", documents=nothing, conversation=nothing, files=nothing)
    assert done.answer == "Yes."


@pytest.mark.parametrize(
    ("told", "call"),
    [
        ("inputs must be a mapping", lambda opened: opened.plan("Why?", inputs="rounds=2")),
        ("at must be a text; it is int", lambda opened: opened.fork("x", at=3)),
        ("settings must be a list of names", lambda opened: opened.fork("x", at="a", settings="model")),
        ("inputs must be a mapping", lambda opened: opened.rerun("x", inputs=["a"])),
        ("pipeline must be a built-in name", lambda opened: opened.resume("x", pipeline=3)),
        ("no run 3 is recorded", lambda opened: opened.resume(3)),
        ("no run None is recorded", lambda opened: opened.answer(None, "ask", print)),
    ],
)
async def test_what_goes_on_says_what_it_takes(told: str, call: Callable[[Any], Awaitable[Any]]) -> None:
    async with session() as opened:
        with pytest.raises((UsageError, JournalError), match=f"^{told}"):
            await call(opened)


@pytest.mark.parametrize(
    ("told", "call"),
    [
        ("text must be the YAML of a pipeline as a str; it is dict of int", lambda: Pipeline.parse({"a": 1})),
        ("text must be the YAML", lambda: Pipeline.parse(b"version: 1")),
        ("pipeline must be a built-in name", lambda: Pipeline.find(None)),
        ("pipeline must be a built-in name", lambda: Pipeline.load(3)),
        ("text must be the Markdown of an agent", lambda: Agent.parse(None)),
        ("config_path must be the path", lambda: load_settings(config_path=3)),
        ("overrides must be a list of texts", lambda: load_settings(overrides="retries=1")),
        ("overrides must be a list of texts.*it is list of int", lambda: load_settings(overrides=[3])),
        ("flags must be a mapping", lambda: load_settings(flags=["-m"])),
        ("nodes must be a list of addresses", lambda: Pool(3)),
        ("settings must be of synaptic.Settings", lambda: Pool("http://a", settings={})),
        ("prompts must be a list", lambda: Pool("http://127.0.0.1:9").chat_many_sync(3)),
    ],
)
def test_other_functions_say_what_they_take(told: str, call: Callable[[], Any]) -> None:
    with pytest.raises(UsageError, match=f"^{told}"):
        call()


async def test_a_run_in_one_call_says_what_it_takes() -> None:
    with pytest.raises(UsageError, match=r"^tools must be a mapping"):
        await run("Why?", settings=OFF, backend=ScriptedBackend(["Yes."]), tools=[len])
