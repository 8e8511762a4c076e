"""An Ollama node that can do what the embedded model cannot: call tools, look at pictures, think, count probabilities.

Its answers follow from the question, so that a test sees what has arrived: with tools, the last user message is the
argument of a call of the first tool; a tool's result is repeated; a picture is measured. Else it says what was said.
"""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MODEL = "teller:1b"
VECTOR = 4  # numbers of an embedding


class ToolNode:
    """The node.

    Attributes:
        url: Where it listens.
        bodies: Of every call of ``/api/chat`` and ``/api/embed``, in the order of arrival.
        active: Calls that are being answered.
        pace: Seconds between two pieces.
        pause_at: The word before which nothing more comes until the client has gone; "" goes on.
        told_prompt: Tokens of prompts that were told to their clients.
        sent: Pieces that were sent, of all calls.
        idle: Set while no call is being answered.
        can: What its model can do, besides embedding.

    """

    def __init__(self, model: str = MODEL) -> None:
        self.model = model
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self.active = 0
        self.pace = 0.0
        self.pause_at = ""
        self.told_prompt = 0
        self.can = ["completion", "tools", "vision", "thinking"]
        self.sent = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/api/tags", self._tags)
        app.router.add_get("/api/ps", self._ps)
        app.router.add_post("/api/show", self._show)
        app.router.add_post("/api/chat", self._chat)
        app.router.add_post("/api/embed", self._embed)
        return app

    def _entry(self) -> dict[str, Any]:
        details = {"format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "1B"}
        return {"name": self.model, "model": self.model, "size": 1000, "digest": "d" * 64, "details": details}

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "0.32.0"})

    async def _tags(self, _: web.Request) -> web.Response:
        return web.json_response({"models": [self._entry()]})

    async def _ps(self, _: web.Request) -> web.Response:
        return web.json_response({"models": [{**self._entry(), "size_vram": 0, "context_length": 4096}]})

    async def _show(self, request: web.Request) -> web.Response:
        body = await request.json()
        if not body["model"].startswith(self.model.partition(":")[0]):
            return web.json_response({"error": f"model '{body['model']}' not found"}, status=404)
        told = {"general.architecture": "llama", "llama.context_length": 8192}
        return web.json_response({"model_info": told, "capabilities": self.can, "details": self._entry()["details"]})

    async def _embed(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        self.told_prompt += len(body["input"])
        vectors = [[float(len(text)), *[0.0] * (VECTOR - 1)] for text in body["input"]]
        return web.json_response({"model": body["model"], "embeddings": vectors, "prompt_eval_count": len(vectors)})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if not body["model"].startswith(self.model.partition(":")[0]):
            return web.json_response({"error": f"model '{body['model']}' not found"}, status=404)
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        self.active += 1
        self.idle.clear()
        try:
            await response.prepare(request)
            pieces = answer(body)
            for piece in pieces:
                if self.pause_at and piece.get("content", "").strip() == self.pause_at:
                    await asyncio.Event().wait()
                line = {"model": body["model"], "message": {"role": "assistant", "content": "", **piece}, "done": False}
                if body.get("logprobs") and piece.get("content"):
                    line["logprobs"] = [_logprob(piece["content"], body.get("top_logprobs") or 0)]
                await response.write(json.dumps(line).encode() + b"\n")
                self.sent += 1
                await asyncio.sleep(self.pace)
            words = sum(len(message["content"].split()) for message in body["messages"])
            last = {"model": body["model"], "message": {"role": "assistant", "content": ""}, "done": True}
            last |= {"done_reason": "stop", "prompt_eval_count": words, "eval_count": len(pieces)}
            await response.write(json.dumps(last).encode() + b"\n")
            self.told_prompt += words
            await response.write_eof()
        finally:
            self.active -= 1
            if not self.active:
                self.idle.set()
        return response


def answer(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pieces of the answer, as parts of messages."""
    last = body["messages"][-1]
    pieces: list[dict[str, Any]] = [{"thinking": "hm"}] if body.get("think") else []
    if body.get("tools") and last["role"] == "user":
        function = {"name": body["tools"][0]["function"]["name"], "arguments": {"city": last["content"]}}
        return [*pieces, {"tool_calls": [{"function": function}]}]
    if body.get("format"):
        return [*pieces, {"content": '{"city": '}, {"content": f'"{last["content"]}"}}'}]
    text = last["content"]
    if last.get("images"):
        text = f"{len(base64.b64decode(last['images'][0]))} bytes"
    words = text.split()
    return [*pieces, *({"content": word if not index else f" {word}"} for index, word in enumerate(words))]


def _logprob(token: str, top: int) -> dict[str, Any]:
    entry = {"token": token, "logprob": -0.5, "bytes": list(token.encode())}
    return {**entry, "top_logprobs": [entry] * top}


@asynccontextmanager
async def tool_node(model: str = MODEL) -> AsyncIterator[ToolNode]:
    """Run a node during the block."""
    node = ToolNode(model)
    runner = web.AppRunner(node.application(), handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        node.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield node
    finally:
        await runner.cleanup()
