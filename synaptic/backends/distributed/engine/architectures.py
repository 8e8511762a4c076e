"""Which architectures of models an installed engine was built with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synaptic.errors import ModelFileError

if TYPE_CHECKING:
    from pathlib import Path

    from synaptic.backends.distributed.engine.engine import EngineFiles

ENGINE_LIBRARIES: Final = ("libllama.", "llama.")


def check_engine_knows(path: Path, architecture: str, engine: EngineFiles) -> None:
    """Refuse an architecture that this very engine was built without.

    The names are text constants in ``libllama``, or in ``llama-server`` where that is linked statically. One that is
    not there is surely not known; a short one may be there by chance, and then the engine itself will refuse.
    Reads a few megabytes: call it in a thread.

    Raises:
        ModelFileError: If the engine does not know it.

    """
    places = [file for file in engine.libraries if file.name.startswith(ENGINE_LIBRARIES)] or [engine.llama_server]
    wanted = architecture.encode() + b"\0"
    try:
        known = any(wanted in place.read_bytes() for place in places)
    except OSError as error:
        raise ModelFileError(f"the engine cannot be read: {error}") from error
    if not known:
        raise ModelFileError(
            f"{path} has the architecture {architecture!r}, which the engine in {engine.directory} does not know",
            hint="use a newer engine (synaptic engine install), on every machine alike",
        )
