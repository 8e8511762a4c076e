"""The kinds of steps, in the order in which messages name them. A new kind is one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synaptic.pipeline.kinds import agent, ask, choose, repeat, tool, use

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline.kinds.kind import Kind

_KINDS: Final[tuple[Kind, ...]] = (
    agent.AgentKind(),
    use.UseKind(),
    tool.ToolKind(),
    choose.ChooseKind(),
    repeat.RepeatKind(),
    ask.AskKind(),
)
KINDS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in _KINDS}
"""By the name that events and plans give them."""
