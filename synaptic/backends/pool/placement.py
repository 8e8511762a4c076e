"""Where a model landed: in video memory, or on the processor of a machine that has better.

``/api/ps`` tells after a load how much of the model is in video memory. A model that did not get all of it because
others lie idle there is loaded once more without them; there is no other way to help it through Ollama's API, as
``num_gpu`` would have to be sent with every later call, or force a reload itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from synaptic.backends.pool.rates import Rates
from synaptic.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.backends.pool.facts import LoadedModel
    from synaptic.backends.pool.member import Member

WHOLE = 0.98
"""Part in video memory from which a model counts as all there: its output layer may be kept elsewhere."""


class Say(Protocol):
    """Tells people."""

    def __call__(self, message: str, *, warning: bool = False) -> None:
        """Tell them."""


class Placement:
    """Verifies placements.

    Args:
        say: Tells people.

    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._expected: dict[tuple[int, str], int | None] = {}
        self._has_gpu: set[int] = set()
        self._told: set[tuple[int, str]] = set()
        self._helped: set[tuple[int, str]] = set()

    def expect(self, member: Member, model: str, num_ctx: int | None) -> None:
        """Take note that ``model`` was loaded just now: the next look at the node verifies it."""
        self._expected[member.state.key, model] = num_ctx

    async def verify(self, member: Member, loaded: Mapping[str, LoadedModel]) -> None:
        """Look at where models landed that were loaded since the last time."""
        key = member.state.key
        if any(entry.size_vram for entry in loaded.values()):
            self._has_gpu.add(key)
        for at, model in [place for place in self._expected if place[0] == key]:
            num_ctx = self._expected.pop((at, model))
            entry = loaded.get(model)
            if entry is None or key not in self._has_gpu or entry.vram_share >= WHOLE:
                continue
            idle = [
                name
                for name, other in loaded.items()
                if name != model and other.size_vram and name not in member.state.busy_models
            ]
            self._tell(member, model, entry, idle)
            if idle and not member.state.in_flight and (key, model) not in self._helped:
                self._helped.add((key, model))
                await self._load_again(member, model, num_ctx, idle)

    def _tell(self, member: Member, model: str, entry: LoadedModel, idle: list[str]) -> None:
        key, name = member.state.key, member.state.name
        if (key, model) in self._told:
            return
        self._told.add((key, model))
        share = round(100 * (1 - entry.vram_share))
        advice = (
            f"; {', '.join(idle)} lie idle in its video memory" if idle else ": its video memory is too small for it"
        )
        self._say(f"{model} runs {share} % on the processor of {name}{advice}", warning=True)

    async def _load_again(self, member: Member, model: str, num_ctx: int | None, idle: list[str]) -> None:
        """Take the idle models out, and the model in again; what was learned of its speed here is void."""
        state = member.state.models.get(model)
        try:
            for name in (*idle, model):
                await member.client.unload(name)
            await member.client.load(model, num_ctx=num_ctx)
        except BackendError as exc:
            self._say(f"{model} could not be loaded again on {member.state.name}: {exc.message}", warning=True)
            return
        for name in idle:
            if (other := member.state.models.get(name)) is not None:
                other.resident = False
        if state is not None:
            state.rates = Rates(load_seconds=state.rates.load_seconds)
        self._say(f"{model} was loaded again on {member.state.name}, without {', '.join(idle)}")
