"""What a scripted node has loaded: joined loads, reloads for another ``num_ctx``, keep-alives, evictions."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from synaptic.models.names import full_name

if TYPE_CHECKING:
    from faulty_node_script import Config, Model


@dataclass(slots=True)
class Loaded:
    """A model in memory. ``expires`` is by the loop's clock and counts while nobody uses it."""

    context: int
    vram_share: float
    expires: float
    used: float
    users: int = 0


class Memory:
    """The models that are loaded.

    Attributes:
        loads: How often each model was loaded, reloads included.

    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.loads: Counter[str] = Counter()
        self._loaded: dict[str, Loaded] = {}
        self._loading: dict[tuple[str, int | None], asyncio.Task[None]] = {}
        for name in config.loaded:
            self.put(name)

    def installed(self, name: str) -> Model | None:
        """Return the installed model of that name."""
        return {full_name(known): model for known, model in self.config.models.items()}.get(full_name(name))

    def put(self, name: str, options: dict[str, Any] | None = None, *, keep_alive: float = float("inf")) -> None:
        """Have a model loaded from now on, at no cost."""
        options = options or {}
        model = self.installed(name)
        assert model is not None, f"{name} is not installed"
        context = self._context(model, options)
        share = model.vram_share_asked if "num_gpu" in options else None
        now = asyncio.get_running_loop().time()
        share = model.vram_share if share is None else share
        self._loaded[full_name(name)] = Loaded(context, share, now + keep_alive, now)

    def current(self) -> dict[str, Loaded]:
        """Return what is loaded now."""
        now = asyncio.get_running_loop().time()
        for name, entry in list(self._loaded.items()):
            if not entry.users and entry.expires <= now:
                del self._loaded[name]
        return self._loaded

    def unload(self, name: str) -> None:
        """Forget a model."""
        self._loaded.pop(full_name(name), None)

    async def use(self, name: str, options: dict[str, Any]) -> tuple[Loaded, float]:
        """Return a model that is loaded as ``options`` ask, and the seconds that loading it took; see :meth:`release`.

        A client that leaves while its model is loaded does not end the load.
        """
        loop = asyncio.get_running_loop()
        begin = loop.time()
        waited = False
        while (entry := self.current().get(full_name(name))) is None or self._differs(name, entry, options):
            waited = True
            key = (full_name(name), options.get("num_ctx"))
            if key not in self._loading:
                self._loading[key] = loop.create_task(self._load(name, options))
                self._loading[key].add_done_callback(partial(self._loaded_by, key))
            await asyncio.shield(self._loading[key])
        entry.users += 1
        entry.used = loop.time()
        return entry, loop.time() - begin if waited else 0.0

    def release(self, entry: Loaded, keep_alive: float) -> None:
        """End a use; the model stays for ``keep_alive`` seconds."""
        entry.users -= 1
        entry.used = asyncio.get_running_loop().time()
        entry.expires = entry.used + keep_alive

    async def close(self) -> None:
        """End the loads that are still going on."""
        for task in (tasks := list(self._loading.values())):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _loaded_by(self, key: tuple[str, int | None], _: asyncio.Task[None]) -> None:
        self._loading.pop(key, None)

    def _differs(self, name: str, entry: Loaded, options: dict[str, Any]) -> bool:
        """Tell whether the model must be loaded anew."""
        model = self.installed(name)
        assert model is not None
        moved = "num_gpu" in options and model.vram_share_asked not in (None, entry.vram_share)
        return moved or self._context(model, options) != entry.context

    def _context(self, model: Model, options: dict[str, Any]) -> int:
        """Return the context that a call with these options is served with."""
        return min(options.get("num_ctx") or model.num_ctx or self.config.default_context, model.context)

    async def _load(self, name: str, options: dict[str, Any]) -> None:
        self.loads[full_name(name)] += 1
        while (entry := self.current().get(full_name(name))) is not None and entry.users:
            await asyncio.sleep(0.001)  # as Ollama does: the model goes when its last call has ended
        self.unload(name)
        await asyncio.sleep(self.config.load_seconds)
        while len(current := self.current()) >= self.config.max_loaded:
            idle = [other for other, entry in current.items() if not entry.users]
            if idle:
                self.unload(min(idle, key=lambda other: current[other].used))
            else:
                await asyncio.sleep(0.001)
        self.put(name, options, keep_alive=300.0)
