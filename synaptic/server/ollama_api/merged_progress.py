"""What several nodes tell of one and the same change, as if one told it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from synaptic.backends.http import count_in, text_in

if TYPE_CHECKING:
    from collections.abc import Collection

    from synaptic.server.ollama_api.replies import Json

SUCCESS = "success"
MOST_TOLD = 1000
"""Layers, and other things, that are told of one change: a model has some ten of each, and no node makes up more."""


@dataclass(slots=True)
class _Layer:
    """What of one layer has come.

    Attributes:
        total: Its bytes; 0 where they are not known.
        completed: Bytes by node.
    """

    total: int = 0
    completed: dict[int, int] = field(default_factory=dict)


class MergedProgress:
    """The lines of several nodes as the lines of one.

    The bytes of a layer are those of all nodes together, had and to be had: of a layer of 1 GB, three nodes fetch 3 GB.
    Anything else is told once, when the last of the nodes at work has told it; the very first line is told at once.

    Args:
        nodes: Numbers of the nodes.
    """

    def __init__(self, nodes: Collection[int]) -> None:
        self._at_work = set(nodes)
        self._done: set[int] = set()
        self._layers: dict[str, _Layer] = {}
        self._said: dict[str, set[int]] = {}
        self._told: set[str] = set()

    def take(self, node: int, line: Json) -> list[Json]:
        """Return what there is to tell after a line of a node."""
        status, digest = text_in(line.get("status")), text_in(line.get("digest"))
        if digest:
            if digest not in self._layers and len(self._layers) >= MOST_TOLD:
                return []
            layer = self._layers.setdefault(digest, _Layer())
            layer.total = max(layer.total, count_in(line.get("total")))
            layer.completed[node] = count_in(line.get("completed"))
            return [{"status": status, "digest": digest, **self._bytes_of(layer)}]
        if status != SUCCESS and (status in self._said or len(self._said) < MOST_TOLD):
            self._said.setdefault(status, set()).add(node)
        return self._due()

    def done(self, node: int) -> list[Json]:
        """Return what there is to tell once a node has come to its end."""
        self._at_work.discard(node)
        self._done.add(node)
        return self._due()

    def failed(self, node: int) -> list[Json]:
        """Return what there is to tell once a node has given up: nothing is waited for from it."""
        self._at_work.discard(node)
        return self._due()

    def _due(self) -> list[Json]:
        due = []
        for status, said in self._said.items():
            if status not in self._told and (not self._told or self._at_work <= said):
                self._told.add(status)
                due.append({"status": status})
        return due

    def _bytes_of(self, layer: _Layer) -> Json:
        had = sum(layer.completed.get(node, 0) for node in self._at_work)
        had += layer.total * len(self._done)
        total = layer.total * (len(self._at_work) + len(self._done))
        told = {"total": total, "completed": min(had, total)}
        return {name: count for name, count in told.items() if count}  # as Go leaves out what is zero
