"""The context length that an Ollama is asked for: pure.

Ollama loads a model anew for every call that asks for another ``num_ctx`` than it is loaded with, also for a shorter
one; other programs, which ask for what they always do, then have it loaded anew once more. So no call asks for less
than there is.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING

from synaptic.backends.ollama.api import merge_models
from synaptic.models import name_key

if TYPE_CHECKING:
    from synaptic.backends.http import JsonObject

_OWN = re.compile(r"^[ \t]*num_ctx[ \t]+([0-9]{1,18})[ \t\r]*$", re.MULTILINE)  # within a line: a node may send many


class ContextReason(Enum):
    """Why a call asks for a context length; the value says it to people."""

    WANTED = "num_ctx of the settings"
    LOADED = "it is loaded with that, and another length would load it anew"
    OWN = "PARAMETER num_ctx of the model"
    TRAINED = "all that it was trained with"
    SERVER = "the server decides"


def context_to_ask(
    wanted: int | None, *, loaded: int | None = None, own: int | None = None, trained: int | None = None
) -> tuple[int | None, ContextReason]:
    """Return the context length to send with a call, and why; ``None`` sends none.

    Args:
        wanted: What the call needs at least.
        loaded: What the model is loaded with there; ``None`` if it is not, or where that is not known.
        own: The ``PARAMETER num_ctx`` of its Modelfile.
        trained: What it was trained with: no server gives more.
    """
    most, why = wanted or 0, ContextReason.WANTED
    if own is not None and own > most:
        most, why = own, ContextReason.OWN
    if trained is not None and most > trained:
        most, why = trained, ContextReason.TRAINED
    if loaded is not None and loaded >= most:
        most, why = loaded, ContextReason.LOADED
    return (most, why) if most else (None, ContextReason.SERVER)


def loaded_contexts(ps: JsonObject) -> dict[str, int | None]:
    """Return the context of each model that ``/api/ps`` lists; ``None`` where an older server does not say."""
    return {name_key(info.name): info.context_length for info in (one.info for one in merge_models(ps, ps))}


def own_context(shown: JsonObject) -> int | None:
    """Return the ``PARAMETER num_ctx`` that ``/api/show`` tells; ``None`` if the model has none."""
    parameters = shown.get("parameters")
    found = _OWN.findall(parameters) if isinstance(parameters, str) else []
    return int(found[-1]) or None if found else None
