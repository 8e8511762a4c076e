"""A scripted Ollama node that misbehaves on demand: for the tests and the benchmarks of everything that uses nodes.

It speaks what a pool asks a node (``/api/version tags ps show chat generate embed``), and what changes its models
(:mod:`faulty_node_models`), in Ollama's words, over real sockets. It can be told at any time to fail in one of the ways
of :data:`faulty_node_script.Kind`:

    async with FaultyNode(models=["m"], seconds_per_token=0.01, parallel=2) as node:
        ... node.url ...
        node.fail("drop_after_n", after=3, times=1)   # the next call only
        await node.wait_for(lambda: node.counters.in_flight == 0)
        node.config.seconds_per_token = 0.1           # from the next call on
        node.heal()

:mod:`faulty_node_child` runs the same in a process of its own, which can be killed, stopped and started again.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import zlib
from collections import Counter, deque
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from chat_turns import TEMPLATES, prompt_of
from faulty_node_http import TEXT, Connection, Request
from faulty_node_memory import Loaded, Memory
from faulty_node_models import NodeModels
from faulty_node_reply import Asked, Reply, dumps, line, stamp
from faulty_node_script import Config, Fault, count_tokens, keep_alive_seconds, shared_tokens, write_script
from faulty_node_slots import BUSY, CALLS, Counters, Refused, Slots

from synaptic.models.names import full_name

if TYPE_CHECKING:
    from collections.abc import Callable

NOT_FOUND = "404 page not found"
DETAILS = {
    "format": "gguf",
    "family": "llama",
    "families": ["llama"],
    "parameter_size": "1.2B",
    "quantization_level": "Q8_0",
}


class FaultyNode:
    """Serve on a port of 127.0.0.1; fields of :class:`Config` are the arguments.

    Attributes:
        config: May be changed at any time; calls that have started keep what they started with.
        counters: See :class:`Counters`.
        asked: The last calls, oldest first.
        memory: What is loaded.
        changes: What was pulled, pushed, made, copied and deleted.

    """

    def __init__(self, port: int = 0, **config: Any) -> None:
        self.config = Config(**config)
        self.port = port
        self.counters = Counters()
        self.asked: deque[Asked] = deque(maxlen=20_000)
        self.memory: Memory
        self.gate = asyncio.Event()
        """While it is not set, no call gets further than its arrival."""
        self.gate.set()
        self._fault = Fault()
        self._random = random.Random(0)
        self._struck = 0
        self._slots = Slots(self.config, self.counters)
        self._prompts: dict[str, deque[str]] = {}
        self._connections: set[Connection] = set()
        self._changed = asyncio.Event()
        self.changes = NodeModels(self)
        self._socket: socket.socket | None = None
        self._kept: socket.socket | None = None
        self._accepting: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def mode(self) -> str:
        """How the node misbehaves now; assign a kind or a :class:`Fault`, see also :meth:`fail`."""
        return self._fault.kind

    @mode.setter
    def mode(self, fault: str | Fault) -> None:
        self._fault = fault if isinstance(fault, Fault) else Fault(kind=fault)  # type: ignore[arg-type]  # checked there
        self._struck = 0
        if self._fault.kind == "refuse":
            if self._socket is not None:
                self._close_port()
                self._kept = bound_socket(self.port)  # a port that nobody has could become another program's
        elif self._socket is None:
            self._open_port()
        for connection in self._connections:
            (connection.transport.pause_reading if self._blackhole else connection.transport.resume_reading)()

    @property
    def duplicates(self) -> int:
        """How many calls asked what another one had asked already, word for word."""
        seen = Counter(
            json.dumps([call.path, call.model, call.messages, call.body.get("prompt")]) for call in self.asked
        )
        return seen.total() - len(seen)

    def fail(self, kind: str, **details: Any) -> None:
        """Misbehave from now on; ``details`` are the fields of :class:`Fault`."""
        self.mode = Fault(kind=kind, **details)  # type: ignore[arg-type]  # checked there

    def heal(self) -> None:
        """Behave from now on."""
        self.mode = "ok"

    async def __aenter__(self) -> Self:
        self.memory = Memory(self.config)
        self._open_port()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close_port()
        if self._kept is not None:
            self._kept.close()
        await self.wait_for(lambda: not self._connections and not self._accepting)
        await self.memory.close()

    async def wait_for(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Return once ``condition`` holds; it is asked whenever a client comes, asks or leaves and when a call ends."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def wait_until_idle(self) -> None:
        """Return once no call is in flight."""
        await self.wait_for(lambda: self.counters.in_flight == 0)

    # What a connection calls.

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        if self._socket is None:  # it came while the port was closed
            connection.cut(reset=True)
        self.counters.connections += 1
        self.counters.open_connections += 1
        if self._blackhole:
            connection.transport.pause_reading()
        self._changed.set()

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.counters.open_connections -= 1
        self._changed.set()

    async def serve(self, connection: Connection, request: Request) -> None:
        self.counters.requests[request.path] += 1
        self._changed.set()
        if self.changes.has_route(request):
            try:
                await self.changes.serve(connection, request)
            finally:
                self._changed.set()
            return
        if request.path not in CALLS:
            if self._fault.everything and not request.path.startswith("/_"):
                await self._disrupt(connection, self._strike())
            self._listing(connection, request)
            return
        body = json.loads(request.body)
        call = Asked(request.path, full_name(body.get("model", "")), body)
        self.asked.append(call)
        self.counters.enter(call.model)
        try:
            await self.gate.wait()
            await self._call(connection, call)
        except Refused as refusal:
            call.outcome = "failed"
            connection.reply(refusal.status, dumps({"error": refusal.text}))
        except asyncio.CancelledError:
            call.outcome = "failed" if connection.cut_by_us else "abandoned"
            raise
        finally:
            self.counters.outcomes[call.outcome] += 1
            self.counters.leave(call.model)
            self._changed.set()

    # Calls.

    async def _call(self, connection: Connection, call: Asked) -> None:
        fault = self._strike()
        await self._disrupt(connection, fault)
        keep_alive, model = self._check(call)
        call.outcome = "ok"
        if call.path != "/api/embed" and not call.body.get("messages") and not call.body.get("prompt"):
            await self._load_only(connection, call, keep_alive)
            return
        if call.body.get("_debug_render_only") and self.config.renders:
            prompt = prompt_of(self.config.turn, call.messages)
            connection.reply(200, dumps({**line(call, ""), "_debug_info": {"rendered_template": prompt}}))
            return
        async with self._slots.hold():
            entry, load_seconds = await self.memory.use(call.model, call.body.get("options") or {})
            try:
                if call.path == "/api/embed":
                    await self._embed(connection, call)
                    return
                script = write_script(self.config, call.body)
                prompt_tokens = count_tokens(script.prompt)
                if call.body.get("truncate") is False and prompt_tokens > min(entry.context, model.context):
                    raise Refused(400, "the input length exceeds the context length")
                load_seconds = load_seconds or self.config.warm_load_seconds
                reply = Reply(self.config, connection, call, script=script, fault=fault, load_seconds=load_seconds)
                whole = await reply.send(prompt_tokens - self._cached(call.model, script.prompt), prompt_tokens)
                call.outcome = "ok" if whole else "failed"
            finally:
                self.memory.release(entry, keep_alive)

    def _check(self, call: Asked) -> tuple[float, Any]:
        """Refuse what Ollama refuses at once; return the keep-alive in seconds and the model."""
        try:
            keep_alive = keep_alive_seconds(call.keep_alive)
        except ValueError as error:
            raise Refused(400, str(error)) from error
        model = self.memory.installed(call.model)
        if model is None:
            raise Refused(404, f"model '{call.body.get('model', '')}' not found")
        name = call.body["model"]
        if call.path == "/api/chat" and "completion" not in model.capabilities:
            raise Refused(400, f'"{name}" does not support chat')
        if call.body.get("tools") and "tools" not in model.capabilities:
            raise Refused(400, f"registry.ollama.ai/library/{call.model} does not support tools")
        if call.body.get("think") and "thinking" not in model.capabilities:
            raise Refused(400, f'"{name}" does not support thinking')
        return keep_alive, model

    async def _load_only(self, connection: Connection, call: Asked, keep_alive: float) -> None:
        if keep_alive == 0:
            self.memory.unload(call.model)
        else:
            entry, _ = await self.memory.use(call.model, call.body.get("options") or {})
            self.memory.release(entry, keep_alive)
        said = line(call, "", done=True, done_reason="load" if keep_alive else "unload")
        connection.reply(200, dumps(said))

    async def _embed(self, connection: Connection, call: Asked) -> None:
        texts = call.body.get("input", "")
        texts = [texts] if isinstance(texts, str) else texts
        await asyncio.sleep(self.config.seconds_per_call)
        vectors = [
            [((zlib.crc32(f"{place}{text}".encode()) % 2001) - 1000) / 1000 for place in range(8)] for text in texts
        ]
        prompt_tokens = sum(count_tokens(text) for text in texts)
        connection.reply(200, dumps({"model": call.model, "embeddings": vectors, "prompt_eval_count": prompt_tokens}))

    def _cached(self, model: str, prompt: str) -> int:
        """Return how many tokens of the prompt cost nothing, and remember the prompt."""
        if not self.config.prefix_cache:
            return 0
        earlier = self._prompts.setdefault(model, deque(maxlen=self.config.parallel))
        known = shared_tokens(prompt, list(earlier))
        earlier.append(prompt)
        return known

    # Faults.

    @property
    def _blackhole(self) -> bool:
        return self._fault.kind == "blackhole"

    def _strike(self) -> Fault:
        """Return the fault that meets this call."""
        fault = self._fault
        if fault.times is not None and self._struck >= fault.times:
            return Fault()
        if fault.kind == "flaky":
            return replace(fault, kind="error" if self._random.random() < fault.probability else "ok")
        self._struck += fault.kind != "ok"
        return fault

    async def _disrupt(self, connection: Connection, fault: Fault) -> None:
        """Do what comes before the headers."""
        if fault.seconds and fault.kind != "slow_headers":
            await asyncio.sleep(fault.seconds)
        match fault.kind:
            case "error":
                raise Refused(500, "llama runner process has terminated: exit status 2")
            case "busy_503":
                raise Refused(503, BUSY)
            case "loading":
                raise Refused(500, "llm server loading model")
            case "unauthorised":
                raise Refused(401, "unauthorized")
            case "not_found":
                raise Refused(404, "model not found")
            case "hang_before_headers":
                await asyncio.get_running_loop().create_future()

    def _open_port(self) -> None:
        """Listen; a port that was used before is used again."""
        self._socket = self._kept or bound_socket(self.port)
        self._kept = None
        self._socket.listen(1024)
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        """Take the clients that have come."""
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        with suppress(BlockingIOError):
            while True:
                client, _ = self._socket.accept()
                task = loop.create_task(loop.connect_accepted_socket(lambda: Connection(self), client))
                self._accepting.add(task)
                task.add_done_callback(self._accepting.discard)

    def _close_port(self) -> None:
        """Refuse; connections are cut."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        self._socket = None
        for connection in tuple(self._connections):
            connection.cut(reset=True)

    # Listings.

    def _listing(self, connection: Connection, request: Request) -> None:
        match request.path:
            case "/" if request.method in ("GET", "HEAD"):
                connection.reply(200, b"Ollama is running" if request.method == "GET" else b"", TEXT)
            case "/api/version":
                connection.reply(200, dumps({"version": self.config.version}))
            case "/api/tags":
                connection.reply(200, dumps({"models": [self._tag(name) for name in self.config.models]}))
            case "/api/ps":
                connection.reply(200, dumps({"models": self._processes()}))
            case "/api/show":
                self._show(connection, json.loads(request.body))
            case _:
                connection.reply(404, NOT_FOUND.encode(), TEXT)

    def _tag(self, name: str) -> dict[str, Any]:
        name = full_name(name)
        model = self.memory.installed(name)
        assert model is not None
        digest = f"{zlib.crc32((name + model.content).encode()):064x}"
        entry = {"name": name, "model": name, "size": model.size, "digest": digest, "details": DETAILS}
        return {**entry, "modified_at": stamp(), "capabilities": list(model.capabilities)}

    def _processes(self) -> list[dict[str, Any]]:
        now = asyncio.get_running_loop().time()
        current = self.memory.current()
        if self._fault.kind == "lie_in_ps":
            names = [name for name in map(full_name, self.config.models) if name not in current]
            current = {name: Loaded(self.config.default_context, 1.0, now + 300, now) for name in names}
        listed = []
        for name, entry in current.items():
            tag = self._tag(name)
            left = min(max(entry.expires - now, 0.0), 3e9)
            details = {key: tag[key] for key in ("name", "model", "size", "digest", "details")}
            vram = int(tag["size"] * entry.vram_share)
            listed.append({**details, "expires_at": stamp(left), "size_vram": vram, "context_length": entry.context})
        return listed

    def _show(self, connection: Connection, body: dict[str, Any]) -> None:
        name = body.get("model") or body.get("name") or ""
        model = self.memory.installed(name)
        if model is None:
            connection.reply(404, dumps({"error": f"model '{name}' not found"}))
            return
        info = {
            "general.architecture": "llama",
            "general.parameter_count": model.size,
            "llama.context_length": model.context,
        }
        shown = {"details": DETAILS, "model_info": info, "capabilities": list(model.capabilities)}
        if model.num_ctx is not None:
            shown["parameters"] = (
                f'num_ctx                        {model.num_ctx}\nstop                           "</s>"'
            )
        connection.reply(200, dumps({**shown, "modified_at": stamp(), "template": TEMPLATES[self.config.turn]}))


def bound_socket(port: int) -> socket.socket:
    """Return a socket that has the port and does not listen: who connects is refused."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound
