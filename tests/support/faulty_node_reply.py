"""How a scripted node answers one call: Ollama's lines, at the node's pace, up to the fault that meets the call."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from faulty_node_http import NDJSON, Connection, head
from faulty_node_script import BROKEN, Config, Fault, Script

STREAMED = ("hang_after_n", "drop_after_n", "error_line_after_n", "malformed_json")
CRASHED = "an error was encountered while running the model"


@dataclass(slots=True)
class Asked:
    """A call, and how it ended: ``ok``, ``failed`` (by a fault or a refusal) or ``abandoned`` by the client."""

    path: str
    model: str
    body: dict[str, Any]
    outcome: str = "open"
    produced: int = 0

    @property
    def num_ctx(self) -> int | None:
        return (self.body.get("options") or {}).get("num_ctx")

    @property
    def keep_alive(self) -> object:
        return self.body.get("keep_alive")

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.body.get("messages", [])
        return messages


class Reply:
    """The reply to one chat or generate call, at its pace, up to its fault."""

    def __init__(
        self,
        config: Config,
        connection: Connection,
        call: Asked,
        *,
        script: Script,
        fault: Fault,
        load_seconds: float,
    ) -> None:
        self._connection = connection
        self._call = call
        self._script = script
        self._fault = fault
        self._load_seconds = load_seconds
        slow = fault.factor if fault.kind == "slow" else 1.0
        self._call_seconds = config.seconds_per_call * slow
        self._prompt_seconds = config.seconds_per_prompt_token * slow
        self._token_seconds = config.seconds_per_token * slow

    async def send(self, new_prompt_tokens: int, prompt_tokens: int) -> bool:
        """Send it; tell whether it was whole. Times are kept against the clock, so that long replies do not drift."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        first = begin + self._call_seconds + new_prompt_tokens * self._prompt_seconds
        tokens = self._script.tokens
        breaks = self._fault.kind in STREAMED
        stop = min(self._fault.after, len(tokens)) if breaks else len(tokens)
        streams = self._call.body.get("stream") is not False
        await wait_until(first)
        headers = await self._headers() if streams else b""
        while self._call.produced < stop:
            sent = self._call.produced
            await wait_until(first + sent * self._token_seconds)
            due = int((loop.time() - first) / self._token_seconds) + 1 if self._token_seconds else stop
            upto = min(stop, max(due, sent + 1))
            if streams:
                now = stamp()
                lines = [dumps(line(self._call, token, now)) + b"\n" for token in tokens[sent:upto]]
                self._connection.chunks(lines, headers)
                if self._token_seconds:
                    self._connection.flush()
            headers = b""
            self._call.produced = upto
        if breaks:
            await self._break(headers)
            return False
        await wait_until(first + stop * self._token_seconds)
        if self._fault.kind != "no_done":
            self._finish(streams, headers, prompt_tokens, [first - begin, loop.time() - first])
            return True
        self._connection.chunks([], headers)
        self._connection.end()
        return False

    def _finish(self, streams: bool, headers: bytes, prompt_tokens: int, seconds: list[float]) -> None:  # noqa: FBT001 - private
        """Send ``done: true``, or all of a reply that was not to be streamed."""
        prompt_ns, eval_ns = (int(value * 1e9) for value in seconds)
        load_ns = int(self._load_seconds * 1e9)
        last = line(
            self._call,
            "" if streams else "".join(self._script.tokens),
            done=True,
            done_reason="length" if self._script.length else "stop",
            total_duration=load_ns + prompt_ns + eval_ns,
            load_duration=load_ns,
            prompt_eval_count=prompt_tokens,
            prompt_eval_duration=prompt_ns,
            eval_count=len(self._script.tokens) - self._script.repeated,
            eval_duration=eval_ns,
        )
        if streams:
            self._connection.chunks([dumps(last) + b"\n"], headers)
            self._connection.end()
        else:
            self._connection.reply(200, dumps(last))

    async def _headers(self) -> bytes:
        """Return the headers to send with the first line, or send them one byte at a time and return nothing."""
        headers = head(200, NDJSON)
        if self._fault.kind != "slow_headers":
            return headers
        for byte in headers:
            self._connection.transport.write(bytes([byte]))
            await asyncio.sleep(self._fault.seconds)
        return b""

    async def _break(self, headers: bytes) -> None:
        """Do what the fault says in the middle of the reply."""
        match self._fault.kind:
            case "drop_after_n":
                if headers:
                    self._connection.chunks([], headers)
                self._connection.flush()
                await asyncio.sleep(0.01)  # what was written arrives before a reset makes the client forget it
                self._connection.cut(reset=self._fault.reset)
                return
            case "error_line_after_n":
                self._connection.chunks([dumps({"error": CRASHED}) + b"\n"], headers)
            case "malformed_json":
                self._connection.chunks([BROKEN.encode()], headers)
            case _:
                if headers:
                    self._connection.chunks([], headers)
                self._connection.flush()
                await asyncio.get_running_loop().create_future()
        self._connection.end()


def line(call: Asked, text: str, now: str = "", *, done: bool = False, **final: Any) -> dict[str, Any]:
    """Return one object of a reply."""
    said = {"message": {"role": "assistant", "content": text}} if call.path == "/api/chat" else {"response": text}
    return {"model": call.model, "created_at": now or stamp(), **said, "done": done, **final}


def dumps(value: object) -> bytes:
    """Return compact JSON, as Go writes it."""
    return _ENCODE(value).encode()


def stamp(seconds_from_now: float = 0.0) -> str:
    """Return a time as Ollama writes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds_from_now)).isoformat()


_ENCODE = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


async def wait_until(due: float) -> None:
    """Return at a time of the loop's clock."""
    delay = due - asyncio.get_running_loop().time()
    if delay > 0:
        await asyncio.sleep(delay)
