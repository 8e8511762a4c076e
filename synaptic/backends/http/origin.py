"""Who was asked, as far as errors need to know it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

OLLAMA = "ollama"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who was asked, and how.

    Attributes:
        backend: The backend's name.
        node: The server's address, fit to be shown: without the password that may stand in it.
        path: Of the request; "" where there was none yet.
        secret: Whether credentials were sent.
        ca_file: Whether certificates of its own are believed instead of the system's.
    """

    backend: str
    node: str
    path: str = ""
    secret: bool = False
    ca_file: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "node", without_password(self.node))

    @property
    def program(self) -> str:
        """What is expected to answer there."""
        if self.backend == OLLAMA:
            return "Ollama"
        return "llama-server" if self.backend in {"llama-server", "distributed"} else "server"

    @property
    def is_ollama(self) -> bool:
        """Whether it is one of the nodes of the settings, which have keys for credentials and certificates."""
        return self.backend == OLLAMA

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, as far as its address says."""
        host = urlsplit(self.node).hostname or ""
        return host in {"localhost", "::1"} or host.startswith("127.")


def without_password(url: str) -> str:
    """Return ``url`` without the user and password that it may carry."""
    if "@" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
