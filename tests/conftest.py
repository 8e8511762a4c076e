"""What every test gets: a home of its own, no settings of the machine, no local Ollama."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import platformdirs
import pytest

from synaptic.backends.embedded import EmbeddedBackend
from synaptic.config import Settings

REAL_CACHE = platformdirs.user_cache_dir()
NOBODY = "127.0.0.1:9"  # the discard port: nothing listens there


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Move home to an empty place; only the cache stays, which holds the embedded model."""
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith("SYNAPTIC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", REAL_CACHE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / ".local" / "state"))
    monkeypatch.setenv("OLLAMA_HOST", NOBODY)
    return home


@pytest.fixture
async def real_backend() -> AsyncIterator[EmbeddedBackend]:
    """The embedded model, started."""
    backend = EmbeddedBackend(Settings())
    await backend.start()
    yield backend
    await backend.aclose()
