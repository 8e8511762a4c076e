"""A real node whose model has a template of one kind of :mod:`chat_turns`: a proxy in front of ``synaptic serve``.

Both are in one process, so that a signal meets both. With a template in Go's notation the prompt is made here and goes
to the model as it is (``raw``); with the GGUF's own, the reply to a continued answer begins with the text so far.

    python template_node_child.py open|closed|jinja --port 0 [--parallel 1] [--threads 1] [--context 4096]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parent))

from chat_turns import TEMPLATES, Turn, prompt_of, said_before

from synaptic.models import ModelStore
from synaptic.server.ollama_api import ServeSettings, check_alias
from synaptic.server.program import serve
from synaptic.settings.load import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PIECE = 40  # characters of an echo that come at once


class TemplateNode:
    """Passes on what a client asks, with prompts of its own.

    Args:
        turn: The kind of its template.
        behind: The address of the server that has the model.

    """

    def __init__(self, turn: Turn, behind: str) -> None:
        self._turn = turn
        self._behind = behind
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))

    def application(self) -> web.Application:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/api/chat", self._chat)
        app.router.add_post("/api/show", self._show)
        app.router.add_route("*", "/{path:.*}", self._other)
        app.on_cleanup.append(lambda _: self._session.close())
        return app

    async def _other(self, request: web.Request) -> web.StreamResponse:
        async with self._session.request(request.method, self._behind + request.path, data=await request.read()) as got:
            return await passed_on(request, got, got.content)

    async def _show(self, request: web.Request) -> web.StreamResponse:
        async with self._session.post(self._behind + "/api/show", data=await request.read()) as got:
            shown = await got.json()
            if got.status == 200:
                shown["template"] = TEMPLATES[self._turn]
            return web.json_response(shown, status=got.status)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        messages = body.get("messages") or []
        if self._turn == "jinja" or not messages:
            echo = "" if body.get("_debug_render_only") else said_before(messages)
            async with self._session.post(self._behind + "/api/chat", json=body) as got:
                return await passed_on(request, got, with_echo(got, echo))
        prompt = prompt_of(self._turn, messages)
        if body.get("_debug_render_only"):
            said = {"role": "", "content": ""}
            told = {"model": body["model"], "message": said, "_debug_info": {"rendered_template": prompt}}
            return web.json_response(told)
        generate = {name: value for name, value in body.items() if name != "messages"}
        generate |= {"prompt": prompt, "raw": True}
        async with self._session.post(self._behind + "/api/generate", json=generate) as got:
            return await passed_on(request, got, as_chat(got))


async def passed_on(
    request: web.Request, got: aiohttp.ClientResponse, lines: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Send what the server behind sends, line by line."""
    response = web.StreamResponse(status=got.status, headers={"content-type": got.headers.get("content-type", "")})
    await response.prepare(request)
    async for line in lines:
        await response.write(line)
    await response.write_eof()
    return response


async def as_chat(got: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the lines of ``/api/generate`` as ``/api/chat`` would send them."""
    async for raw in got.content:
        line = json.loads(raw)
        if "response" in line:
            line["message"] = {"role": "assistant", "content": line.pop("response")}
        yield json.dumps(line).encode() + b"\n"


async def with_echo(got: aiohttp.ClientResponse, echo: str) -> AsyncIterator[bytes]:
    """Yield the lines of a chat, and before the first one the text that it continues."""
    async for raw in got.content:
        if echo and got.status == 200:
            first: dict[str, Any] = {**json.loads(raw), "done": False}
            for at in range(0, len(echo), PIECE):
                first["message"] = {"role": "assistant", "content": echo[at : at + PIECE]}
                yield json.dumps(first).encode() + b"\n"
            echo = ""
        yield raw


async def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("turn", choices=sorted(TEMPLATES))
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--alias", action="append", default=[])
    given = parser.parse_args()
    settings = ServeSettings(
        port=0,
        parallel=given.parallel,
        threads=given.threads,
        context=given.context,
        aliases=tuple(check_alias(alias) for alias in given.alias),
    )
    behind: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(
        serve(settings, Settings(backend="embedded"), ModelStore(), lambda url, _: behind.set_result(url))
    )
    await asyncio.wait([server, behind], return_when=asyncio.FIRST_COMPLETED)
    if server.done():
        server.result()
    runner = web.AppRunner(
        TemplateNode(cast("Turn", given.turn), await behind).application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=0.1,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", given.port).start()
        port = runner.addresses[0][1]
        sys.stderr.write(f"serving at http://127.0.0.1:{port} with a template of the kind {given.turn}\n")
        sys.stderr.flush()
        await server
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
