"""Runs that are killed with SIGKILL at some moment and then resumed, before a scripted node that counts their calls."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faulty_node import FaultyNode
from warm_python import start_program

from synaptic import paths

if TYPE_CHECKING:
    from faulty_node_http import Connection, Request

GRACE = 0.1
"""Seconds before the kill: a call that the node ended later may not have got into the journal yet."""

INNER = """\
version: 1
name: inner
inputs: {topic: {required: true}}
agents:
  writer: {prompt: "Write."}
steps:
  facts: {agent: writer, prompt: "facts of {{ inputs.topic }}"}
  check: {agent: writer, prompt: "check {{ steps.facts }}"}
result: "{{ steps.check }}"
"""
PIPELINE = """\
version: 1
name: everything
inputs: {query: {required: true}}
agents:
  writer: {prompt: "Write."}
  lister: {prompt: "List.", output: {items: "list[string](3..3)"}}
steps:
  plan: {agent: lister, prompt: "plan {{ inputs.query }}"}
  each: {agent: writer, foreach: "[1, 2, 3, 4]", as: n, prompt: "part {{ n }} of {{ steps.plan.items }}"}
  said: {agent: writer, samples: 3, select: vote, prompt: "say {{ inputs.query }}"}
  refine:
    repeat:
      max: 3
      steps:
        draft: {agent: writer, prompt: "draft after {{ previous.draft if previous }}"}
  slow: {agent: writer, max_tokens: 400, prompt: "slow {{ steps.plan.items }}"}
  quick: {agent: writer, max_tokens: 3, prompt: "quick {{ steps.plan.items }}"}
  raced: {agent: writer, join: first, needs: [slow, quick], prompt: "raced {{ steps.slow }}|{{ steps.quick }}"}
  look: {use: inner.yaml, with: {topic: "{{ steps.raced }}"}}
  noted: {tool: note, with: {text: "{{ steps.look }}"}}
  end: {agent: writer, prompt: "end {{ steps.each }} {{ steps.said }} {{ steps.refine.draft }} {{ steps.noted }}"}
result: "{{ steps.end }}"
"""
TOOL = '''\
"""A tool that notes each of its calls."""

import asyncio
from pathlib import Path

from synaptic import tool


@tool
async def note(text: str) -> str:
    """Note that it was called."""
    with Path("noted").open("a") as file:
        file.write("x")
    await asyncio.sleep(0.05)
    return f"noted {text}"
'''


class CountingNode(FaultyNode):
    """A node that knows when each whole reply was sent.

    Attributes:
        ended: What was asked, and when its reply was complete.
        first: Set with the first call.

    """

    def __init__(self, **config: Any) -> None:
        super().__init__(models=["m"], parallel=16, **config)
        self.ended: list[tuple[str, float]] = []
        self.first = asyncio.Event()

    async def serve(self, connection: Connection, request: Request) -> None:
        """Serve a request, and note its end."""
        if request.path != "/api/chat":
            await super().serve(connection, request)
            return
        self.first.set()
        body = json.loads(request.body)
        if body.get("_debug_render_only"):
            await super().serve(connection, request)
            return
        before = len(self.asked)
        await super().serve(connection, request)
        if any(call.body == body and call.outcome == "ok" for call in list(self.asked)[before:]):
            self.ended.append((what_is_asked(body), time.monotonic()))

    def forget(self) -> None:
        """Begin to count anew."""
        self.ended.clear()
        self.asked.clear()
        self.first.clear()


def what_is_asked(body: dict[str, Any]) -> str:
    """Return what tells calls apart: messages, without an answer that is continued, seed and shape."""
    messages = [message for message in body["messages"] if message["role"] != "assistant"]
    return json.dumps([messages, (body.get("options") or {}).get("seed"), body.get("format")])


@dataclass(slots=True)
class Trial:
    """What came of one kill.

    Attributes:
        moment: Seconds after the first call at which it came.
        ended: Whether the run had come to its end by then.
        recorded: Whether the run was in the journal by then.
        finished: Calls that had ended at the node, longer before the kill than :data:`GRACE`.
        late: Calls that had ended within that.
        repeated: Of the finished ones, those that were made again.
        repeated_late: Of the late ones.
        lost: Calls that the whole run makes and the two goes together did not.
        same: Whether the answer is the one of a run that was not killed.
        notes: Calls of the tool in both goes.
        continued: Calls that went on with the text that they had.
        again: The most tokens of such a call that were generated twice.

    """

    moment: float
    ended: bool = False
    recorded: bool = True
    finished: int = 0
    late: int = 0
    repeated: int = 0
    repeated_late: int = 0
    lost: int = 0
    same: bool = False
    notes: int = 0
    continued: int = 0
    again: int = 0
    said: str = field(default="", repr=False)


class Trials:
    """One pipeline, killed over and over.

    Args:
        folder: For its files; a home of its own is in it.
        node: Answers the calls.
        settings: Further settings, as ``KEY=VALUE``.
        grace: See :data:`GRACE`; more where the machine may be busy, and the program reads late what the node said.

    """

    def __init__(self, folder: Path, node: CountingNode, settings: tuple[str, ...] = (), grace: float = GRACE) -> None:
        self._folder = folder
        self._node = node
        self._settings = settings
        self._grace = grace
        self.whole: Counter[str] = Counter()
        self.answer = ""
        self.seconds = 0.0
        self._lengths: dict[str, int] = {}
        (folder / "inner.yaml").write_text(INNER)
        (folder / "pipeline.yaml").write_text(PIPELINE)
        (folder / "notes.py").write_text(TOOL)

    async def measure(self) -> None:
        """Run once without a kill: what that says, which calls it makes, and how long it takes."""
        self._begin_anew()
        await self._start("-p", "pipeline.yaml", "why")
        began = await self._first_call()
        code = await self._ended()
        assert code == 0, self._said()
        self.seconds = max(at for _, at in self._node.ended) - began
        self.whole = Counter(asked for asked, _ in self._node.ended)
        self._lengths = self._produced("ok")
        self.answer = json.loads(self._out.read_text())["answer"]

    async def trial(self, moment: float) -> Trial:
        """Kill a run so many seconds after its first call, and resume it."""
        self._begin_anew()
        pid = await self._start("-p", "pipeline.yaml", "why")
        await self._first_call()
        await asyncio.sleep(moment)
        killed = time.monotonic()
        with suppress(ProcessLookupError):  # it may have come to its end
            os.kill(pid, signal.SIGKILL)
        if await self._ended() == 0:
            return Trial(moment, ended=True, same=json.loads(self._out.read_text())["answer"] == self.answer)
        await self._node.wait_until_idle()
        finished = Counter(asked for asked, at in self._node.ended if at < killed - self._grace)
        late = Counter(asked for asked, at in self._node.ended if at >= killed - self._grace)
        open_calls = self._produced("abandoned")
        self._node.forget()
        await self._start("runs", "resume")
        code = await self._ended()
        trial = Trial(moment, finished=finished.total(), late=late.total(), said=self._said())
        if code == 2 and "there is no run to go on with" in trial.said:
            if finished + late == self.whole:  # it was on its way out
                return Trial(moment, ended=True, same=True)
            trial.recorded = False
            trial.repeated = finished.total()
            trial.same = True
            return trial
        again = Counter(asked for asked, _ in self._node.ended)
        trial.repeated = (again - (self.whole - finished)).total()
        trial.repeated_late = (again - (self.whole - finished - late)).total() - trial.repeated
        trial.lost = (self.whole - finished - late - again).total()
        trial.same = code == 0 and json.loads(self._out.read_text())["answer"] == self.answer
        noted = self._folder / "noted"
        trial.notes = len(noted.read_text()) if noted.exists() else 0
        went_on = self._produced("ok", going_on=True)
        trial.continued = len(went_on)
        twice = (open_calls.get(asked, 0) + more - self._lengths[asked] for asked, more in went_on.items())
        trial.again = max(twice, default=0)
        return trial

    def _produced(self, outcome: str, *, going_on: bool = False) -> dict[str, int]:
        """Return how many tokens the node has generated in calls that ended so, by what they asked."""
        calls = [call for call in self._node.asked if call.outcome == outcome and call.messages]
        return {
            what_is_asked(call.body): call.produced
            for call in calls
            if (call.messages[-1]["role"] == "assistant") == going_on and not call.body.get("_debug_render_only")
        }

    # -- the program ---------------------------------------------------------------------------------------

    @property
    def _out(self) -> Path:
        return self._folder / "out"

    def _said(self) -> str:
        return Path(f"{self._out}.err").read_text()

    def _begin_anew(self) -> None:
        self._node.forget()
        (self._folder / "noted").unlink(missing_ok=True)
        for file in self._folder.rglob(f"{paths.journal_file().name}*"):
            file.unlink()

    async def _start(self, *arguments: str) -> int:
        home = {name: str(self._folder) for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
        settings = [f"nodes={self._node.url}", "model=m", "task_distribution_enabled=true", *self._settings]
        options = [word for setting in settings for word in ("--set", setting)]
        words = [*arguments[:-1]] if arguments[0] == "-p" else [*arguments]
        last = [arguments[-1]] if arguments[0] == "-p" else []
        arguments = [*words, "--json", "-v", "--tools", "notes.py", *options, *last]
        self._program = await asyncio.to_thread(
            start_program, arguments, self._out, cwd=self._folder, env={**os.environ, **home}
        )
        return self._program.pid

    async def _ended(self) -> int:
        return await asyncio.to_thread(self._program.wait)

    async def _first_call(self) -> float:
        try:
            async with asyncio.timeout(20):
                await self._node.first.wait()
        except TimeoutError:
            raise AssertionError(f"no call came: {self._said()}") from None
        return time.monotonic()
