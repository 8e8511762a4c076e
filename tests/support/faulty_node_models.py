"""How a scripted node changes its models: pull, push, create, copy, delete and blobs, in Ollama's words.

As ``server/routes.go``, ``create.go`` and ``images.go`` have it: fields that are zero are left out of a line, an error
before the first line has a status, one behind it is a line, and without a stream it is 500.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from faulty_node_http import NDJSON, head
from faulty_node_reply import dumps
from faulty_node_script import Model

from synaptic.models.names import full_name

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from faulty_node import FaultyNode
    from faulty_node_http import Connection, Request

NO_MANIFEST = "pull model manifest: file does not exist"
CHANGES = ("/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete")
BLOBS = "/api/blobs/"


class GaveUp(Exception):
    """An error behind the first line."""


def digest_of(name: str, place: int) -> str:
    """Return the digest of a layer of a model of the library."""
    return f"sha256:{hashlib.sha256(f'{full_name(name)} {place}'.encode()).hexdigest()}"


class NodeModels:
    """What changes the models of a node.

    Attributes:
        blobs: What was uploaded, by digest.
        bodies: Of the requests that changed something, with their routes.
        abandoned: Routes whose clients left before the end.
    """

    def __init__(self, node: FaultyNode) -> None:
        self._node = node
        self._layers: set[str] = set()
        self.blobs: dict[str, bytes] = {}
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self.abandoned: list[str] = []

    def has_route(self, request: Request) -> bool:
        """Tell whether a request is one of these."""
        known = request.path in CHANGES or request.path.startswith(BLOBS)
        return known and self._node.config.manages

    async def serve(self, connection: Connection, request: Request) -> None:
        """Answer a request."""
        if request.path.startswith(BLOBS):
            self._blob(connection, request)
            return
        if request.method != ("DELETE" if request.path == "/api/delete" else "POST"):
            connection.reply(405, b"405 method not allowed", "text/plain")
            return
        body = json.loads(request.body)
        self.bodies.append((request.path, body))
        try:
            await self._change(connection, request.path, body)
        except BaseException:
            self.abandoned.append(request.path)
            raise

    async def _change(self, connection: Connection, path: str, body: dict[str, Any]) -> None:
        name = body.get("model") or body.get("name") or ""
        if path == "/api/delete":
            found = self._spelled(name)
            if found is None:
                connection.reply(404, dumps({"error": f"model '{name}' not found"}))
                return
            del self._node.config.models[found]
            self._node.memory.unload(name)
            connection.reply(200, b"")
        elif path == "/api/copy":
            found = self._spelled(body["source"])
            if found is None:
                connection.reply(404, dumps({"error": f'model "{body["source"]}" not found'}))
                return
            self._node.config.models[body["destination"]] = self._node.config.models[found]
            connection.reply(200, b"")
        elif path == "/api/create" and (refused := self._uncreatable(body)):
            connection.reply(400, dumps({"error": refused}))
        else:
            lines = {"/api/pull": self._pull, "/api/push": self._push, "/api/create": self._create}[path]
            await self._tell(connection, lines(name, body), stream=body.get("stream") is not False)

    def _spelled(self, name: str) -> str | None:
        return next((known for known in self._node.config.models if full_name(known) == full_name(name)), None)

    def _uncreatable(self, body: dict[str, Any]) -> str:
        files = body.get("files") or {}
        if not body.get("from") and not files:
            return "neither 'from' or 'files' was specified"
        missing = next((digest for digest in files.values() if digest not in self.blobs), None)
        return f"open {missing}: no such file or directory" if missing else ""

    async def _pull(self, name: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        del body
        yield {"status": "pulling manifest"}
        layers = self._node.config.library.get(full_name(name))
        if layers is None:
            raise GaveUp(NO_MANIFEST)
        for place, total in enumerate(layers):
            digest = digest_of(name, place)
            told = {"status": f"pulling {digest[7:19]}", "digest": digest, "total": total}
            if digest not in self._layers:
                yield told
                yield {**told, "completed": total // 2}
                await self._node.gate.wait()
                self._layers.add(digest)
            yield {**told, "completed": total}
        yield {"status": "verifying sha256 digest"}
        yield {"status": "writing manifest"}
        self._node.config.models[full_name(name)] = Model(size=sum(layers))
        yield {"status": "success"}

    async def _push(self, name: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        del body
        yield {"status": "retrieving manifest"}
        if self._spelled(name) is None:
            raise GaveUp("couldn't find the manifest")
        yield {"status": "pushing manifest"}
        yield {"status": "success"}

    async def _create(self, name: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        origin = body.get("from")
        if origin and self._spelled(origin) is None:
            async for line in self._pull(origin, body):
                if line["status"] != "success":
                    yield line
        for digest in (body.get("files") or {}).values():
            yield {"status": f"using existing layer {digest}"}
        yield {"status": "writing manifest"}
        self._node.config.models[full_name(name)] = Model(content=str(body.get("system")))
        yield {"status": "success"}

    async def _tell(self, connection: Connection, lines: AsyncGenerator[dict[str, Any], None], *, stream: bool) -> None:
        told: dict[str, Any] = {}
        begin = head(200, NDJSON)
        try:
            async for told in lines:
                if stream:
                    connection.chunks([dumps(told) + b"\n"], begin)
                    connection.flush()
                    begin = b""
        except GaveUp as error:
            if not stream:
                connection.reply(500, dumps({"error": str(error)}))
                return
            connection.chunks([dumps({"error": str(error)}) + b"\n"])
        if stream:
            connection.end()
        else:
            connection.reply(200, dumps(told))

    def _blob(self, connection: Connection, request: Request) -> None:
        digest = request.path.removeprefix(BLOBS)
        if request.method == "HEAD":
            status = 200 if digest in self.blobs else 404
            connection.transport.write(head(status, "text/plain", "Content-Length: 0"))
            return
        own = f"sha256:{hashlib.sha256(request.body).hexdigest()}"
        if own != digest:
            said = f'digest mismatch, expected "{digest}", got "{own}"'
            connection.reply(400, dumps({"error": said}))
            return
        known = digest in self.blobs
        self.blobs[digest] = request.body
        connection.reply(200 if known else 201, b"")
