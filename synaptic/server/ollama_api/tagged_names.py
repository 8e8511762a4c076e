"""Names of models as Ollama reads them: a tag that is not given is ``latest``, letters' case does not matter."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from synaptic.models import name_key

if TYPE_CHECKING:
    from collections.abc import Iterable

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"
_NAME = re.compile(rf"(?:[A-Za-z0-9_][A-Za-z0-9_.\-:]*/)?(?:{_PART}/)?{_PART}(?::{_PART})?")
_LONGEST = 350  # host, namespace, model and tag together


def is_valid(name: str) -> bool:
    """Tell whether ``name`` can be the name of a model at all."""
    return len(name) <= _LONGEST and _NAME.fullmatch(name) is not None


def find(name: str, known: Iterable[str]) -> str | None:
    """Return the one of ``known`` that ``name`` means, as it is written there; ``None`` if it means none."""
    wanted = name_key(name)
    return next((candidate for candidate in known if name_key(candidate) == wanted), None)
