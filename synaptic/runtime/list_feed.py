"""The items of a list that a model is still writing, each as soon as it is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ijson

from synaptic.agents import Field, ListType, ObjectType, Shape
from synaptic.errors import OutputInvalid
from synaptic.waiting import ChangeSignal

if TYPE_CHECKING:
    from collections.abc import Sequence


class ListFeed:
    """One list field of one step's output.

    The writing step calls ``write``, ``reset`` (the text so far is void) and at last ``finish``; maps over the list
    read ``items`` and ``generation`` and wait with ``changed``.

    Attributes:
        field: Which field of the output it is.
        items: The complete items so far.
        generation: Counts how often everything was void.
        final: What the list turned out to be, once the step has ended; empty if it was skipped.
    """

    def __init__(self, shape: Shape, field: str) -> None:
        kind = shape.lookup([field])
        if not isinstance(kind, ListType):
            raise TypeError(f"{field!r} is not a list")
        self._item = Shape(ObjectType((Field("item", kind.item),)))
        self._prefix = f"{field}.item"
        self.field = field
        self.items: list[Any] = []
        self.generation = 0
        self.final: Sequence[Any] | None = None
        self._change = ChangeSignal()
        self._begin()

    def _begin(self) -> None:
        self._found: Any = ijson.sendable_list()
        self._parser: Any = ijson.items_coro(self._found, self._prefix, use_float=True)

    def write(self, text: str) -> None:
        """Take the next piece of the text."""
        if self._parser is None or not text:  # to the parser, nothing is the end
            return
        try:
            self._parser.send(text.encode())
        except ijson.JSONError:
            self._parser = None  # what is wrong with the text is found when it is checked as a whole
        found, self._found[:] = list(self._found), ()
        for item in found:
            if not self._take(item):
                break

    def _take(self, item: Any) -> bool:
        """Add an item and return whether it has the right form; nothing is read after one that has not."""
        try:
            self.items.append(self._item.validate({"item": item})["item"])
        except OutputInvalid:
            self._parser = None
            return False
        self._change.notify()
        return True

    def reset(self) -> None:
        """Forget everything: the step's call starts again."""
        if self.items:
            self.items = []
            self.generation += 1
            self._change.notify()
        self._begin()

    def finish(self, value: Sequence[Any]) -> None:
        """Take the list as it is in the step's checked output."""
        self.final = value
        self._change.notify()

    async def changed(self) -> None:
        """Wait for the next change; several may wait."""
        await self._change.wait()
