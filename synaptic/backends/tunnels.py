"""Nodes that are reached through a tunnel: it is open for as long as somebody here uses them.

Tunnels are brought by what is registered under the entry points ``synaptic.tunnels``.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, Protocol

from synaptic.messages import ignore_report

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from synaptic.messages import Reporter

GROUP: Final = "synaptic.tunnels"
"""Entry points that open tunnels: a class each, made with addresses and a reporter."""
_HERE: Final = "http://127.0.0.1:"


class OpensTunnels(Protocol):
    """What leads some of the addresses elsewhere."""

    def count(self) -> int:
        """Return how many of the addresses are ends of its tunnels."""
        ...

    async def open(self) -> None:
        """Return once each tunnel was tried; those that fail are tried again, and told."""
        ...

    async def aclose(self) -> None:
        """Close them."""
        ...


class Tunnels:
    """The tunnels that some addresses are the ends of, open within ``async with`` or from ``open`` to ``aclose``.

    Args:
        urls: Addresses of nodes; most have no tunnel.
        report: Told which machine is not reached, is lost, and is back.
    """

    def __init__(self, urls: Collection[str], report: Reporter = ignore_report) -> None:
        self._urls = [url for url in urls if url.startswith(_HERE)]
        self._report = report
        self._opened: list[OpensTunnels] = []

    @property
    def needed(self) -> bool:
        """Whether one of the addresses is the end of a tunnel.

        Raises:
            UsageError: If what names the tunnels cannot be read.
        """
        return any(one.count() for one in self._known())

    async def open(self) -> None:
        """Open the tunnels; nothing happens where no address needs one.

        Raises:
            UsageError: If what names the tunnels cannot be read.
        """
        for one in self._known():
            if one.count():
                self._opened.append(one)
                await one.open()

    async def aclose(self) -> None:
        """Close the tunnels."""
        opened, self._opened = self._opened, []
        await asyncio.gather(*(one.aclose() for one in opened))

    async def __aenter__(self) -> None:
        try:
            await self.open()
        except BaseException:
            await self.aclose()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _known(self) -> Sequence[OpensTunnels]:
        if not self._urls:
            return ()
        return [point.load()(self._urls, self._report) for point in entry_points(group=GROUP)]
