"""Keys of clients: shown once, kept as hashes in a file that only its user may read."""

from __future__ import annotations

import hashlib
import secrets
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from synaptic import paths
from synaptic.errors import UsageError
from synaptic.models import name_spellings
from synaptic.processes import only_one, private_folder, read_json, replace_json, told
from synaptic.text import did_you_mean, excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

PREFIX: Final = "syn-"
LONGEST_NAME: Final = 100
SHOWN: Final = 8  # characters of a key by which a person tells it from others
Scope: TypeAlias = Literal["models", "pipelines", "admin", "metrics"]
"""What a key is for: asking models, asking pipelines, seeing and changing what serves, reading ``/metrics``."""

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
USUAL_SCOPES: Final[tuple[Scope, ...]] = ("models", "pipelines")
_TIME: Final = (int, float)
_ABOUT: Final = "which says whose keys the gateway knows"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """A key, as it is kept.

    Attributes:
        digest: SHA-256 of the key, in hex.
        shown: How the key begins.
        created: When, in seconds since the epoch.
        scopes: What it is for.
        models: Patterns of the models and pipelines that it may ask (``qwen3:*``, ``pipeline/*``); none for all.
        per_minute: Requests that it may make in any minute; ``None`` for any number.
        at_once: Requests that it may have under way; ``None`` for any number.
        tokens_a_day: Tokens of prompts and replies together that it may use in a day of UTC; ``None`` for any number.
        revoked: When, in seconds since the epoch.
    """

    name: str
    digest: str
    shown: str
    created: float
    scopes: tuple[Scope, ...] = USUAL_SCOPES
    models: tuple[str, ...] = ()
    per_minute: int | None = None
    at_once: int | None = None
    tokens_a_day: int | None = None
    revoked: float | None = None

    def may_ask(self, model: str) -> bool:
        """Return whether a model or pipeline may be asked with it.

        It is the model that counts, and not how a client spells it: Ollama ignores capitals and what stands before
        ``://``, so that ``qwen3:x://registry.ollama.ai/library/other`` is ``other``. What goes without saying (the
        registry, ``library/``, ``:latest``) may stand in a pattern.
        """
        if not self.models:
            return True
        names = name_spellings(model)
        return any(fnmatchcase(name, pattern.lower()) for name in names for pattern in self.models)


class KeyFile:
    """The keys of this user.

    Args:
        path: Where they are; ``None`` for the user's own place.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._known: dict[str, ClientKey] = {}

    @property
    def path(self) -> Path:
        """Where the keys are."""
        return self._path or paths.client_keys_file()

    def all(self) -> list[ClientKey]:
        """Return every key, revoked ones included.

        Raises:
            UsageError: If the file cannot be read.
        """
        with self._told("read"):
            return list(_keys(read_json(self.path, missing={})))

    def find(self, key: str) -> ClientKey | None:
        """Return what is known of a key that is not revoked; the file is read again where it has changed.

        Raises:
            UsageError: If the file cannot be read.
        """
        return self._known_now().get(_digest(key))

    def knows(self, key: ClientKey) -> bool:
        """Return whether a key that was found is still known, and not revoked.

        Raises:
            UsageError: If the file cannot be read.
        """
        return key.digest in self._known_now()

    def _known_now(self) -> dict[str, ClientKey]:
        try:
            now = self.path.stat()
            stamp = (now.st_mtime_ns, now.st_size, now.st_ino)
        except OSError:
            stamp = None
        if stamp is None or stamp != self._stamp:
            self._known = {known.digest: known for known in self.all() if known.revoked is None}
            self._stamp = stamp
        return self._known

    @property
    def has_any(self) -> bool:
        """Whether there is a key that is not revoked."""
        return any(key.revoked is None for key in self.all())

    def add(
        self,
        name: str,
        *,
        scopes: Sequence[Scope] = (),
        models: Sequence[str] = (),
        per_minute: int | None = None,
        at_once: int | None = None,
        tokens_a_day: int | None = None,
    ) -> str:
        """Make a key, and return it: it is not kept. Without scopes it is for models and pipelines.

        Raises:
            UsageError: If the name is taken or none, or the file cannot be written.
        """
        if not _is_name(name):
            raise UsageError(f"{excerpt(name)!r} is no name of a key", hint=f"write up to {LONGEST_NAME} characters")
        key = PREFIX + secrets.token_urlsafe(32)
        made = ClientKey(
            name=name,
            digest=_digest(key),
            shown=key[:SHOWN],
            created=time.time(),
            scopes=tuple(dict.fromkeys(scopes)) or USUAL_SCOPES,
            models=tuple(models),
            per_minute=per_minute,
            at_once=at_once,
            tokens_a_day=tokens_a_day,
        )
        with self._changing() as keys:
            if any(other.name == name and other.revoked is None for other in keys):
                raise UsageError(f"there is a key {name!r} already", hint="revoke it first, or choose another name")
            self._write([*keys, made])
        return key

    def revoke(self, name: str) -> ClientKey:
        """Make a key useless, at once, also for a gateway that runs; return what it was.

        Raises:
            UsageError: If there is none of that name, or the file cannot be written.
        """
        with self._changing() as keys:
            found = next((key for key in keys if key.name == name and key.revoked is None), None)
            if found is None:
                names = [key.name for key in keys if key.revoked is None]
                raise UsageError(f"there is no key {name!r}", hint=did_you_mean(name, names))
            gone = replace(found, revoked=time.time())
            self._write([gone if key is found else key for key in keys])
        return gone

    @contextmanager
    def _changing(self) -> Iterator[list[ClientKey]]:
        """Give the keys, and keep other processes out meanwhile."""
        with ExitStack() as held:
            with self._told("written"):
                private_folder(self.path.parent)
                held.enter_context(only_one(self.path))
            yield self.all()

    def _write(self, keys: Sequence[ClientKey]) -> None:
        with self._told("written"):
            replace_json(self.path, {"keys": [asdict(key) for key in keys]})

    def _told(self, done: str) -> AbstractContextManager[None]:
        return told(self.path, _ABOUT, done, if_damaged="move it away, and make new keys: synaptic keys add NAME")


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name.strip()) and name.isprintable() and len(name) <= LONGEST_NAME


def _keys(document: Any) -> Iterator[ClientKey]:
    """Yield the keys of a file, which a person may have changed: a value of another kind is never guessed at."""
    entries = document.get("keys", []) if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise TypeError("it is no object with a list of keys")
    for entry in entries:
        scopes = entry.get("scopes", list(USUAL_SCOPES))  # keys that an older version made have none
        key = ClientKey(**{**entry, "models": tuple(_texts(entry["models"])), "scopes": tuple(_texts(scopes))})
        for what, is_right in (
            ("name", _is_name(key.name)),
            ("digest", isinstance(key.digest, str)),
            ("shown", isinstance(key.shown, str)),
            ("created", type(key.created) in _TIME),
            ("revoked", key.revoked is None or type(key.revoked) in _TIME),
            ("scopes", set(key.scopes) <= set(SCOPES)),
            *((bound, _is_bound(getattr(key, bound))) for bound in ("per_minute", "at_once", "tokens_a_day")),
        ):
            if not is_right:
                raise TypeError(f"the {what} of a key is not one: {excerpt(repr(getattr(key, what)))}")
        yield key


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError(f"{excerpt(repr(value))} is no list of texts")
    return value


def _is_bound(value: Any) -> bool:
    return value is None or (type(value) is int and value > 0)
