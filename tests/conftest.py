"""What every test gets: a home of its own, no settings of the machine, no local Ollama."""

import asyncio
import gc
import os
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import replace
from pathlib import Path

import hypothesis
import platformdirs
import pytest
import pytest_asyncio

from synaptic import paths
from synaptic.backends.embedded.backend import EmbeddedBackend
from synaptic.messages import ChatRequest, Chunk
from synaptic.models import ModelStore
from synaptic.processes import lock
from synaptic.settings import Settings

AGENTS = Path(__file__).parents[1] / "agents"
REAL_MODELS = Path(platformdirs.user_cache_dir("synapticllamas")) / "models"
NOBODY = "127.0.0.1:9"  # the discard port: nothing listens there
FETCH_SECONDS = 900.0
THOROUGH = os.environ.get("TESTS") == "thorough"
"""Whether there is time to try everything in every combination, as at night."""


# What is run outside of a test's home, as by fixtures of a module, is not recorded with the runs of a person.
_STATE = tempfile.TemporaryDirectory(prefix="synaptic-tests-")
os.environ["XDG_STATE_HOME"] = _STATE.name

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts into the background so, and every child would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup so


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave the tests themselves out of what is looked at for garbage: half a million objects, 0.2 s each time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that run a real model first: they take longest, and a file stays with one process (loadfile).

    Such a test is tried once more where it fails: it starts engines and servers beside others on a machine that may be
    slow, and the summary names it (``RERUN``). No other test is.
    """
    real = [item for item in items if item.get_closest_marker("real_model")]
    for item in real:
        item.add_marker(pytest.mark.flaky(reruns=1))
    long = {item.path for item in real}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch the embedded model before the first test, once for all processes: a node says at its start what it has."""
    if not session.config.option.collectonly and any(item.get_closest_marker("real_model") for item in session.items):
        REAL_MODELS.mkdir(parents=True, exist_ok=True)
        with (REAL_MODELS / ".fetching.lock").open("w") as turn:
            lock(turn.fileno(), patience=FETCH_SECONDS)
            asyncio.run(ModelStore().ensure(print))


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user may enter; pytest's own may be entered by the user who runs it only."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the homes of the tests are: pytest's own way to number them looks at all there are, each time."""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def own_home(homes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Move home to an empty place; of the cache, only the embedded model is there."""
    return _move_home(Path(tempfile.mkdtemp(dir=homes)), monkeypatch)


def _move_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("SYNAPTIC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    cache = home / ".cache" / "synapticllamas"
    cache.mkdir(parents=True)
    REAL_MODELS.mkdir(parents=True, exist_ok=True)
    (cache / "models").symlink_to(REAL_MODELS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / ".local" / "state"))
    monkeypatch.setenv("OLLAMA_HOST", NOBODY)
    return home


@pytest.fixture
def brief_writers(own_home: Path) -> None:
    """The shipped agents that write prose, who stop sooner: 512 tokens of a small model show nothing that 96 do not."""
    paths.user_agents_dir().mkdir(parents=True)
    for name in ("editor.md", "storyteller.md"):
        text, count = re.subn(r"^max_tokens: \d+$", "max_tokens: 96", (AGENTS / name).read_text(), flags=re.MULTILINE)
        assert count == 1
        (paths.user_agents_dir() / name).write_text(text)


class SeededBackend(EmbeddedBackend):
    """The embedded backend, one thread of it, with a seed for every call: an answer is the same in each run."""

    def __init__(self) -> None:
        super().__init__(Settings(embedded_threads=1))

    def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        return super().stream(replace(request, seed=1))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real_backend(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedBackend]:
    """The embedded model, started once a module, whose tests run in its loop: ``asyncio(loop_scope="module")``."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _move_home(tmp_path_factory.mktemp("home of the engine"), monkeypatch)
        backend = SeededBackend()
        await backend.start()
    yield backend
    await backend.aclose()
