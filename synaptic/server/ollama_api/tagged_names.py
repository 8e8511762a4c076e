"""Names of models as Ollama reads them: a tag that is not given is ``latest``, letters' case does not matter."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from synaptic.models import full_name

if TYPE_CHECKING:
    from collections.abc import Iterable

LIBRARY = "library/"
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"
_NAME = re.compile(rf"(?:[A-Za-z0-9_][A-Za-z0-9_.\-:]*/)?(?:{_PART}/)?{_PART}(?::{_PART})?")
_LONGEST = 350  # host, namespace, model and tag together


def is_valid(name: str) -> bool:
    """Tell whether ``name`` can be the name of a model at all."""
    return len(name) <= _LONGEST and _NAME.fullmatch(name) is not None


def key(name: str) -> str:
    """Return what two names of the same model have in common."""
    return full_name(name.removeprefix(LIBRARY)).casefold()


def find(name: str, known: Iterable[str]) -> str | None:
    """Return the one of ``known`` that ``name`` means, as it is written there; ``None`` if it means none."""
    wanted = key(name)
    return next((candidate for candidate in known if key(candidate) == wanted), None)
