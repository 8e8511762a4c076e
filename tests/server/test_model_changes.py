"""Models are pulled, copied, made and deleted through the gateway, by Ollama's own client, at nodes that speak so."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import ollama
import pytest
from faulty_node import FaultyNode
from faulty_node_models import digest_of
from gateway_support import embedded_application, gateway

from synaptic.backends.scripted import ScriptedBackend
from synaptic.models import ModelStore
from synaptic.server.gateway import KeyFile
from synaptic.server.limits import ServerLimits, listening
from synaptic.server.ollama_api import ServeSettings, at_nodes
from synaptic.settings.load import Settings
from synaptic.settings.model import NodeSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NEW = "qwen3:8b"
LIBRARY = {NEW: [1000, 10]}
NAMES = ("den", "attic", "shed")
HEADER = "X-Synaptic-Node"
FILE = bytes(range(256)) * 4096  # a megabyte
BLOB = f"/api/blobs/sha256:{hashlib.sha256(FILE).hexdigest()}"
USER = [{"role": "user", "content": "Hello"}]


@asynccontextmanager
async def pool(
    *having: list[str], pooled: bool = True, limits: ServerLimits | None = None, **settings: Any
) -> AsyncIterator[tuple[list[FaultyNode], str]]:
    """Run a node for each list of models, and the gateway in front of them."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(FaultyNode(models=models, library=dict(LIBRARY))) for models in having]
        named = [NodeSettings(url=node.url, name=name) for node, name in zip(nodes, NAMES, strict=False)]
        chosen = Settings(nodes=named, task_distribution_enabled=pooled, **settings)
        yield nodes, await stack.enter_async_context(gateway(chosen, limits=limits))


def names_of(node: FaultyNode) -> list[str]:
    return sorted(node.config.models)


async def answered(url: str, method: str, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    """Return the status, and the last line of the answer."""
    async with (
        aiohttp.ClientSession(url) as session,
        session.request(method, path, json=body, headers=headers) as reply,
    ):
        text = (await reply.text()).strip()
        return reply.status, json.loads(text.splitlines()[-1]) if text else None


async def test_a_pull_is_told_as_one_and_the_model_can_be_asked_then() -> None:
    async with pool(["m"], ["m"], ["m"]) as (nodes, url), ollama.AsyncClient(url) as client:
        told = [part async for part in await client.pull(NEW, stream=True)]
        assert [part.status for part in told if not part.digest] == [
            "pulling manifest",
            "verifying sha256 digest",
            "writing manifest",
            "success",
        ]
        for place, size in enumerate(LIBRARY[NEW]):
            layer = [part for part in told if part.digest == digest_of(NEW, place)]
            assert {part.status for part in layer} == {f"pulling {digest_of(NEW, place)[7:19]}"}
            assert (layer[-1].total, layer[-1].completed) == (3 * size, 3 * size)
            assert [part.completed or 0 for part in layer] == sorted(part.completed or 0 for part in layer)
        assert [names_of(node) for node in nodes] == [["m", NEW]] * 3
        assert NEW in [model.model for model in (await client.list()).models]
        assert (await client.chat(NEW, USER)).message.content
        assert nodes[0].changes.bodies == [("/api/pull", {"model": NEW, "stream": True})]


@pytest.mark.parametrize("pooled", [True, False])
async def test_one_node_tells_as_if_there_were_no_gateway(*, pooled: bool) -> None:
    async with pool(["m"], pooled=pooled) as ((node,), url):
        lines = []
        for address in (url, node.url):
            async with ollama.AsyncClient(address) as client:
                lines.append([part.model_dump() async for part in await client.pull(NEW, insecure=True, stream=True)])
                assert (await client.delete(NEW)).status == "success"
                assert [model.model for model in (await client.list()).models] == ["m:latest"]
                node.changes._layers.clear()
        assert lines[0] == lines[1]
        assert node.changes.bodies[0] == ("/api/pull", {"model": NEW, "stream": True, "insecure": True})


async def test_without_a_stream_a_pull_is_answered_at_its_end() -> None:
    async with pool(["m"], ["m"]) as (nodes, url), ollama.AsyncClient(url) as client:
        assert (await client.pull(NEW)).model_dump(exclude_none=True) == {"status": "success"}
        assert [names_of(node) for node in nodes] == [["m", NEW]] * 2
        with pytest.raises(ollama.ResponseError, match="pull model manifest: file does not exist") as caught:
            await client.pull("nothing")
        assert caught.value.status_code == 500
        with pytest.raises(ollama.ResponseError, match="file does not exist"):
            [_ async for _ in await client.pull("nothing", stream=True)]
        assert await answered(url, "POST", "/api/pull", {"name": NEW}) == (200, {"status": "success"})  # as of old


async def test_nodes_without_any_model_can_be_given_one() -> None:
    async with pool([], []) as (nodes, url), ollama.AsyncClient(url) as client:
        with pytest.raises(ollama.ResponseError):
            await client.list()
        await client.pull(NEW)
        assert [names_of(node) for node in nodes] == [[NEW]] * 2
        assert [model.model for model in (await client.list()).models] == [NEW]


@pytest.mark.parametrize("settings", [{"pooled": False}, {"backend": "ollama"}, {"model_parallel": {NEW: 1}}])
async def test_however_calls_get_there_the_nodes_are_changed(settings: dict[str, Any]) -> None:
    having: list[str] = ["m"] if "model_parallel" in settings else []
    async with pool(having, having, **settings) as (nodes, url), ollama.AsyncClient(url) as client:
        await client.pull(NEW)
        everywhere = "model_parallel" in settings
        assert [NEW in names_of(node) for node in nodes] == [True, everywhere]
        assert (await client.chat(NEW, USER)).message.content


async def test_a_node_that_says_nothing_to_a_deletion_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_nodes, "QUIET_SECONDS", 0.5)
    async with pool(["m"]) as ((node,), url), ollama.AsyncClient(url) as client:
        await client.list()
        node.mode = "blackhole"
        with pytest.raises(ollama.ResponseError, match="did not answer in") as caught:
            await client.delete("m")
        assert caught.value.status_code == 503
        node.heal()


@pytest.mark.parametrize("named", ["attic", "address"])
async def test_a_node_that_is_named_is_the_only_one(named: str) -> None:
    async with pool(["m"], ["m"], ["m"]) as (nodes, url):
        header = {HEADER: nodes[1].url if named == "address" else named}
        async with ollama.AsyncClient(url, headers=header) as client:
            await client.pull(NEW)
            await client.copy("m", "mine")
            await client.create("clerk", from_="m", system="Be short.")
            with pytest.raises(ollama.ResponseError, match="manifest"):  # push: the node asks for more than it has
                await client.push("nobody")
            assert (await client.push("mine")).status == "success"
            await client.delete("m")
        assert [names_of(node) for node in nodes] == [["m"], ["clerk:latest", "mine", NEW], ["m"]]
        status, said = await answered(url, "POST", "/api/pull", {"model": NEW}, **{HEADER: "cellar"})
        assert (status, said["error"]) == (
            400,
            f"{HEADER}: there is no node 'cellar'; there are den, attic, shed",
        )


async def test_two_names_of_nodes_are_one_too_many() -> None:
    async with pool(["m"]) as (_, url), aiohttp.ClientSession(url) as session:
        headers = [(HEADER, "den"), (HEADER, "attic")]
        async with session.post("/api/pull", json={"model": NEW}, headers=headers) as reply:
            assert reply.status == 400
            assert "one node" in (await reply.json())["error"]


async def test_what_needs_something_that_is_at_one_node_asks_for_its_name() -> None:
    digest = digest_of("x", 0)
    async with pool(["m"], ["m"]) as (nodes, url), ollama.AsyncClient(url) as client:
        with pytest.raises(ollama.ResponseError, match=f"/api/push is for one node: .* {HEADER}; there are den, attic"):
            await client.push("m")
        with pytest.raises(ollama.ResponseError, match=f"/api/create is for one node: .* {HEADER}"):
            await client.create("mine", files={"a.gguf": digest})
        assert [node.changes.bodies for node in nodes] == [[], []]
    async with pool(["m"]) as (nodes, url), ollama.AsyncClient(url) as client:
        assert (await client.push("m")).status == "success"
        with pytest.raises(ollama.ResponseError, match="no such file") as caught:
            await client.create("mine", files={"a.gguf": digest})
        assert caught.value.status_code == 400


async def test_a_model_is_made_on_all_nodes_of_one_that_is_fetched_where_it_lacks() -> None:
    async with pool(["m", NEW], ["m"]) as (nodes, url), ollama.AsyncClient(url) as client:
        told = [part.status async for part in await client.create("clerk", from_=NEW, system="Short.", stream=True)]
        assert told[-1] == "success"
        assert "writing manifest" in told
        assert [names_of(node) for node in nodes] == [["clerk:latest", "m", NEW]] * 2
        sent = nodes[0].changes.bodies[0]
        assert sent == ("/api/create", {"model": "clerk", "from": NEW, "system": "Short.", "stream": True})
        with pytest.raises(ollama.ResponseError, match="neither 'from' or 'files'") as caught:
            await client.create("empty")
        assert caught.value.status_code == 400


async def test_a_model_is_deleted_and_copied_wherever_it_is() -> None:
    async with pool(["a", "b"], ["b"]) as (nodes, url), ollama.AsyncClient(url) as client:
        await client.delete("a")
        assert [names_of(node) for node in nodes] == [["b"], ["b"]]
        await client.copy("b", "c")
        assert [names_of(node) for node in nodes] == [["b", "c"], ["b", "c"]]
        assert [model.model for model in (await client.list()).models] == ["b:latest", "c:latest"]
        with pytest.raises(ollama.ResponseError, match="model 'a' not found") as caught:
            await client.delete("a")
        assert caught.value.status_code == 404
        with pytest.raises(ollama.ResponseError, match='model "a" not found') as caught:
            await client.copy("a", "b")
        assert caught.value.status_code == 404


async def test_a_client_that_leaves_ends_the_pull_at_every_node() -> None:
    async with pool(["m"], ["m"]) as (nodes, url):
        for node in nodes:
            node.gate.clear()
        async with ollama.AsyncClient(url) as client:
            stream = await client.pull(NEW, stream=True)
            async for part in stream:
                if part.completed == 1000:  # half of the layer, at both
                    break
            assert [node.changes.abandoned for node in nodes] == [[], []]
            await stream.aclose()
        for node in nodes:
            await node.wait_for(lambda node=node: node.changes.abandoned == ["/api/pull"])
        assert [names_of(node) for node in nodes] == [["m"], ["m"]]


async def test_a_node_that_dies_is_named_and_the_others_have_it() -> None:
    async with pool(["m"], ["m"], ["m"]) as (nodes, url):
        nodes[1].gate.clear()
        async with ollama.AsyncClient(url) as client:
            with pytest.raises(ollama.ResponseError) as caught:
                async for part in await client.pull(NEW, stream=True):
                    if (part.completed or 0) >= 2500:  # two have the layer, and one has half of it
                        nodes[1].mode = "refuse"
        said = caught.value.error
        assert said.startswith(f"pull {NEW}: done on den, shed; not on attic: ")
        assert nodes[1].url in said
        assert [names_of(node) for node in nodes] == [["m", NEW], ["m"], ["m", NEW]]
        status, told = await answered(url, "POST", "/api/pull", {"model": NEW, "stream": False})
        assert (status, "done on den, shed; not on attic" in told["error"]) == (502, True)
        status, told = await answered(url, "DELETE", "/api/delete", {"model": NEW})
        assert (status, "delete qwen3:8b: done on den, shed; not on attic" in told["error"]) == (502, True)
        assert [names_of(node) for node in nodes] == [["m"]] * 3


async def test_nodes_that_have_no_such_route_or_end_too_early_are_told() -> None:
    async with pool(["m"]) as ((node,), url):
        node.config.manages = False
        for method, path in (("POST", "/api/pull"), ("DELETE", "/api/delete")):
            status, told = await answered(url, method, path, {"model": NEW})
            assert (status, f"{node.url} has no {path}" in told["error"]) == (502, True), told
        node.config.manages = True
        node.gate.clear()

        async def die() -> None:
            await node.wait_for(lambda: node.changes.bodies)
            node.mode = "refuse"

        (status, told), _ = await asyncio.gather(
            answered(url, "POST", "/api/pull", {"model": NEW, "stream": False}), die()
        )
        assert (status, "before" in told["error"] or "cut" in told["error"]) == (502, True), told


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/api/pull", {}, "invalid model name"),
        ("/api/pull", {"model": "a b"}, "invalid model name"),
        ("/api/pull", {"model": 5}, "cannot unmarshal number into Go struct field .model of type string"),
        ("/api/pull", {"model": "m", "stream": "no"}, "field .stream of type bool"),
        ("/api/pull", {"model": "m", "insecure": 1}, "field .insecure of type bool"),
        ("/api/push", {}, "model is required"),
        ("/api/create", {"from": "m"}, "invalid model name"),
        ("/api/delete", {"model": ""}, 'name "" is invalid'),
        ("/api/copy", {"source": "", "destination": "b"}, 'source "" is invalid'),
        ("/api/copy", {"source": "m", "destination": "b c"}, 'destination "b c" is invalid'),
        ("/api/pull", {"model": "pipeline/answer"}, '"pipeline/answer" is a pipeline, and no model that a node has'),
        ("/api/delete", {"model": "fast"}, '"fast" is an alias, and no model that a node has'),
        ("/api/copy", {"source": "m", "destination": "fast"}, "is an alias"),
        ("/api/create", {"model": "x", "from": "fast"}, "is an alias"),
    ],
)
async def test_what_is_wrong_is_said_and_no_node_hears_of_it(path: str, body: dict[str, Any], said: str) -> None:
    async with pool(["m"], aliases={"fast": ["m"]}) as ((node,), url):
        method = "DELETE" if path == "/api/delete" else "POST"
        status, told = await answered(url, method, path, body)
        assert (status, said in told["error"]) == (400, True), told
        assert node.changes.bodies == []


async def test_a_backend_without_nodes_refuses_by_its_name() -> None:
    async with gateway(backend=ScriptedBackend()) as url:
        for method, path, body in (
            ("POST", "/api/pull", {"model": NEW}),
            ("POST", "/api/copy", {"source": "a", "destination": "b"}),
            ("DELETE", "/api/delete", {"model": NEW}),
        ):
            status, told = await answered(url, method, path, body)
            assert (status, "the backend 'scripted' pulls, copies, makes and deletes no" in told["error"]) == (
                400,
                True,
            )
    gone = Settings(
        nodes=[NodeSettings(url="http://127.0.0.1:9")], backend="llama-server", coordinator_url="http://127.0.0.1:9"
    )
    async with gateway(gone) as url:
        status, told = await answered(url, "POST", "/api/pull", {"model": NEW})
        assert status == 503, told


async def test_the_embedded_model_is_fetched_and_nothing_else(tmp_path: Path) -> None:
    app = embedded_application(ServeSettings(), ModelStore(tmp_path))
    async with listening(app, "127.0.0.1", 0, drain=0.1) as (url, *_):
        for method, path, body, header, said in (
            ("DELETE", "/api/delete", {"model": "smollm2:135m"}, {}, "the embedded model cannot be changed: no delete"),
            ("POST", "/api/create", {"model": "x", "from": "y"}, {}, "the embedded model cannot be changed: no create"),
            ("POST", "/api/pull", {"model": "x"}, {HEADER: "den"}, "the embedded model serves here, and no node"),
        ):
            status, told = await answered(url, method, path, body, **header)
            assert (status, said in told["error"]) == (400, True), told
        async with aiohttp.ClientSession(url) as session:
            async with session.head(BLOB) as reply:
                assert reply.status == 404
            async with session.post(BLOB, data=FILE) as reply:
                assert (reply.status, "no blobs here" in (await reply.json())["error"]) == (400, True)


async def test_a_page_of_another_origin_changes_nothing() -> None:
    async with pool(["m"]) as ((node,), url):
        for origin in ("http://localhost:3000", "http://evil.example", "null"):
            status, told = await answered(url, "DELETE", "/api/delete", {"model": "m"}, origin=origin)
            assert (status, "error" in told) == (403, True), origin
        assert names_of(node) == ["m"]
        assert await answered(url, "DELETE", "/api/delete", {"model": "m"}, origin=url) == (200, None)


async def test_keys_for_it_have_the_scope_admin(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    chat, admin = keys.add("chat"), keys.add("desk", scopes=["admin"])
    narrow = keys.add("narrow", scopes=["admin"], models=["mine*"])
    async with FaultyNode(models=["m"]) as node:
        settings = Settings(nodes=[NodeSettings(url=node.url)])
        async with gateway(settings, serve=ServeSettings(keys=keys)) as url:

            async def copied(key: str, destination: str) -> int:
                async with ollama.AsyncClient(url, headers={"authorization": f"Bearer {key}"}) as client:
                    try:
                        await client.copy("mine" if key == narrow else "m", destination)
                    except ollama.ResponseError as error:
                        return error.status_code
                    return 200

            assert [await copied(key, "mine") for key in (chat, admin, narrow)] == [403, 200, 200]
            assert await copied(narrow, "yours") == 403
            assert names_of(node) == ["m", "mine"]
            assert (await answered(url, "POST", "/api/pull", {"model": "m"}))[0] == 401


async def test_a_file_of_any_size_goes_to_the_node_that_is_named_and_becomes_a_model(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(FILE)
    small = ServerLimits(body_size=1000, bodies_size=100_000)  # which do not hold for it
    async with pool(["m"], ["m"], limits=small) as (nodes, url):
        async with ollama.AsyncClient(url, headers={HEADER: "attic"}) as client:
            digest = await client.create_blob(file)
            assert (await client.create("mine", files={"model.gguf": digest})).status == "success"
        assert [node.changes.blobs for node in nodes] == [{}, {digest: FILE}]
        assert names_of(nodes[1]) == ["m", "mine:latest"]
        async with aiohttp.ClientSession(url) as session:
            for name, status in (("den", 404), ("attic", 200)):
                async with session.head(BLOB, headers={HEADER: name}) as reply:
                    assert reply.status == status
            for name, status in (("den", 201), ("attic", 200)):
                async with session.post(BLOB, data=FILE, headers={HEADER: name}) as reply:
                    assert (reply.status, await reply.text()) == (status, "")
            async with session.post(BLOB, data=FILE) as reply:
                said = f"/api/blobs is for one node: name it in a header {HEADER}; there are den, attic"
                assert (reply.status, (await reply.json())["error"]) == (400, said)


async def test_a_file_that_is_wrong_is_refused() -> None:
    async with pool(["m"], limits=ServerLimits(body_time=0.2)) as ((node,), url), aiohttp.ClientSession(url) as session:

        async def told(path: str, data: Any, **headers: str) -> tuple[int, str]:
            async with session.post(path, data=data, headers=headers) as reply:
                return reply.status, (await reply.json())["error"]

        async def pausing() -> AsyncIterator[bytes]:
            yield FILE
            await node.gate.wait()

        node.gate.clear()
        assert await told("/api/blobs/sha256:5", FILE) == (400, "invalid digest format")
        status, said = await told(BLOB, b"another file")
        assert (status, "digest mismatch, expected" in said) == (400, True)
        status, said = await told(BLOB, FILE, **{"content-encoding": "gzip"})
        assert (status, "without a Content-Encoding" in said) == (400, True)
        assert await told(BLOB, pausing()) == (408, "nothing more of the body came within 0.2 s")
        node.config.manages = False
        status, said = await told(BLOB, FILE)
        assert (status, f"{node.url} has no {BLOB}" in said) == (502, True)
        node.mode = "refuse"
        assert (await told(BLOB, FILE))[0] == 503
        async with session.head(BLOB) as reply:
            assert reply.status == 503
        assert node.changes.blobs == {}


async def test_a_client_that_leaves_within_its_file_ends_that_at_the_node() -> None:
    async with pool(["m"]) as ((node,), url):

        def uploads() -> int:
            return sum(BLOB.encode() in connection._buffer for connection in node._connections)

        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {BLOB} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(FILE)}\r\n\r\n"
        writer.write(head.encode() + FILE[:70_000])
        async with asyncio.timeout(60):
            while not uploads():
                await asyncio.sleep(0.01)
        writer.close()
        await node.wait_for(lambda: not uploads())
        assert node.changes.blobs == {}
