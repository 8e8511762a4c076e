"""A server of a few handlers in the room that all our servers have: ``limited_server_child.py '{"header_time": 1}'``.

``POST /count`` and ``POST /api/NAME`` tell how many items the list in the body has; ``GET /wait/S`` answers after so
many seconds; ``GET /pour`` sends without an end; ``GET /drip/N`` a line each tenth of a second. Prints its address.
"""

import asyncio
import json
import sys

from aiohttp import web

from synaptic.server.limits import BodyRefused, ServerLimits, limited, listening, read_request

CHUNK = bytes(64 * 1024)


async def count(request: web.Request) -> web.Response:
    try:
        found = await read_request(request, json.loads)
        return web.json_response({"items": len(found) if isinstance(found, list) else 1})
    except BodyRefused as refused:
        return web.json_response({"error": refused.message}, status=refused.status)
    except ValueError as error:
        return web.json_response({"error": str(error)}, status=400)


async def wait(request: web.Request) -> web.Response:
    await asyncio.sleep(float(request.match_info["seconds"]))
    return web.Response(text="waited")


async def pour(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(CHUNK)


async def drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(int(request.match_info["lines"])):
        await asyncio.sleep(0.1)
        await response.write(f"{number}\n".encode())
    await response.write_eof()
    return response


async def main() -> None:
    app = limited(web.Application(), ServerLimits(**json.loads(sys.argv[1])))
    for path in ("/count", "/api/{name}"):
        app.router.add_post(path, count)
    app.router.add_get("/wait/{seconds}", wait)
    app.router.add_get("/pour", pour)
    app.router.add_get("/drip/{lines}", drip)
    async with listening(app, "127.0.0.1", 0, drain=0.1) as addresses:
        sys.stdout.write(addresses[0] + "\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the other end is closed


asyncio.run(main())
