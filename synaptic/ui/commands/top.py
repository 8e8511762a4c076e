"""``synaptic top``: how everything stands now, in the terminal: of a gateway that runs, or of the nodes themselves."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import click
from rich.console import Console

from synaptic.errors import BackendUnavailable, ProtocolError, RequestRejected, UsageError
from synaptic.runtime import Session
from synaptic.server.page import now_of
from synaptic.ui.commands.support import load
from synaptic.ui.options import json_option, settings_options, with_options
from synaptic.ui.screen import ResizableLive, glyphs, now_picture, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from synaptic.settings import Settings
    from synaptic.ui.options import Options

    Look = Callable[[], Awaitable[dict[str, Any]]]

EVERY: Final = 1.0
PATIENCE: Final = 10.0  # seconds for one answer of a gateway
MOST_BYTES: Final = 16_000_000  # of one answer: a thousand nodes with all their models take a tenth of that
KEPT_RATES: Final = 120
_EPILOG = """\b
As in:
  synaptic top                                   the nodes of the settings
  synaptic top --url http://10.0.0.2:11500 --key-env KEY   a gateway

\b
The gateway counts the tokens of all its clients; without one, only what the
nodes themselves tell is known. Ctrl-C ends it. Where stdout is no terminal, it
looks once."""


@click.command(epilog=_EPILOG)
@click.option("--url", metavar="URL", help="A gateway (synaptic serve) that runs; else the nodes are asked.")
@click.option("--key-env", metavar="NAME", help="Environment variable with a key of the gateway, of scope admin.")
@click.option("--once", is_flag=True, help="Look once, and end.")
@settings_options
@json_option
@with_options
def top(options: Options, *, url: str | None, key_env: str | None, once: bool) -> None:
    """Show the nodes with their models, how busy each is, layers of large models, and why calls wait; each second."""
    key = _key(key_env)
    if url is not None and not url.startswith(("http://", "https://")):
        raise UsageError(f"--url {url}: this is no address of a gateway", hint="as in --url http://127.0.0.1:11434")
    settings = None if url is not None else load(options).settings
    live = sys.stdout.isatty() and not once and not options.json
    try:
        asyncio.run(_show(url, key, settings, live=live, as_json=options.json))
    except KeyboardInterrupt:
        if not live:  # else it is how one ends it
            raise


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise UsageError(f"--key-env {name}: there is no such variable, or it is empty")
    return key


async def _show(url: str | None, key: str | None, settings: Settings | None, *, live: bool, as_json: bool) -> None:
    looking = _at_gateway(url, key) if url is not None else _at_backend(settings)
    async with looking as look:
        console = Console(file=sys.stdout, highlight=False)
        if as_json:
            write_json(await look())
        elif not live:
            with console.capture() as drawn:
                console.print(_picture(await look(), [], console))
            if sys.stdout.isatty():
                print(drawn.get(), end="")
            else:
                write_text("\n".join(line.rstrip() for line in drawn.get().splitlines()))
        else:
            await watch(look, console)


async def watch(look: Look, console: Console) -> None:
    """Show what each look finds, a second apart, until it is cancelled; a gateway may be away meanwhile.

    Raises:
        BackendError: If the first look fails.
    """
    now, rates = await look(), list[float]()
    with ResizableLive(console=console, screen=True, auto_refresh=False) as shown:
        while True:
            rates = [*rates[-KEPT_RATES:], now["tokens_per_second"] or 0.0]
            shown.update(_picture(now, rates, console), refresh=True)
            await asyncio.sleep(EVERY)
            try:
                now = await look()
            except BackendUnavailable as error:
                now = {**now, "backend": None, "error": error.message, "nodes": [], "tokens_per_second": 0.0}


def _picture(now: dict[str, Any], rates: list[float], console: Console) -> Any:
    plain = not console.encoding.startswith("utf")
    try:
        return now_picture(now, rates, glyphs(sys.stdout), width=console.width, plain=plain)
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as exc:
        raise ProtocolError("the gateway tells this in another way: is it of another version?") from exc


@asynccontextmanager
async def _at_gateway(url: str, key: str | None) -> AsyncIterator[Look]:
    """Give what asks a gateway."""
    headers = {"accept-encoding": "identity", **({} if key is None else {"authorization": f"Bearer {key}"})}
    limit = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(headers=headers, timeout=limit, auto_decompress=False) as client:

        async def look() -> dict[str, Any]:
            try:
                async with client.get(f"{url.rstrip('/')}/ui/now", allow_redirects=False) as reply:
                    told = json.loads(await _body(reply))
            except TimeoutError as exc:
                raise BackendUnavailable(f"{url} does not answer") from exc
            except aiohttp.ClientConnectionError as exc:
                raise BackendUnavailable(f"nothing answers at {url}", hint="start one: synaptic serve") from exc
            except (aiohttp.ClientError, ValueError, RecursionError) as exc:
                raise ProtocolError(f"what answers at {url} is no gateway of this version") from exc
            if reply.status != 200 or not isinstance(told, dict):
                said = told.get("error") if isinstance(told, dict) else None
                raise RequestRejected(f"{url} says {said or reply.status}", hint="name a key with --key-env NAME")
            return told

        yield look


async def _body(reply: aiohttp.ClientResponse) -> bytes:
    """Return the body of a reply.

    Raises:
        ValueError: If it is too long.
    """
    body = bytearray()
    async for piece in reply.content.iter_any():
        body += piece
        if len(body) > MOST_BYTES:
            raise ValueError("it does not end")
    return bytes(body)


@asynccontextmanager
async def _at_backend(settings: Settings | None) -> AsyncIterator[Look]:
    """Give what asks the nodes, or whatever else the settings choose."""
    async with Session(settings) as session:
        await session.route()
        backend = session.routed_backend
        assert backend is not None, "routed above"

        async def look() -> dict[str, Any]:
            found = await now_of(backend)
            del found["placed"]
            nodes = [{**node, "in_flight": None} for node in found["nodes"]]  # what others run there is not known
            return {**found, "nodes": nodes, "calls": [], "runs": [], "tokens_per_second": None}

        yield look
