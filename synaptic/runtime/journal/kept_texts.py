"""RunTexts named by their content, each once and packed: those of one run as they are written, those of a file as read.

A text that holds much of an earlier one (a prompt with an answer in it, a model's JSON and the value of it) is packed
against that one, so that it takes a few bytes.
"""

from __future__ import annotations

import hashlib
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from synaptic.quick_init import quick_init

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Hash: TypeAlias = bytes

HASH_BYTES: Final = 16
PLAIN: Final = 0
DEFLATED: Final = 1
AGAINST_BASE: Final = 2

MOST_BYTES: Final = 256_000_000
"""Of one text. What unpacks to more is no text of ours; it would fill the memory before it is found to be none."""

_WORTH_PACKING: Final = 100  # bytes
_LARGE: Final = 1 << 20  # bytes above which speed goes before size
_WINDOW: Final = 32 * 1024  # bytes that deflate looks back
_RECENT: Final = 24  # earlier texts that may be in a new one
_WORTH_BASING: Final = 160  # bytes
_PROBE: Final = 24  # characters


@quick_init
@dataclass(frozen=True, slots=True)
class Packed:
    """A text as it is kept.

    Attributes:
        hash: Of the text.
        text: The text itself; its words are indexed.
        size: Bytes of the text.
        base: The text that it is packed against.
    """

    hash: Hash
    text: str
    packed: int
    size: int
    body: bytes
    base: Hash | None = None


def to_bytes(text: str) -> bytes:
    """Return a text as UTF-8; half a character, as a model's JSON may have it, keeps its number."""
    return text.encode("utf-8", "surrogatepass")


def to_text(data: bytes) -> str:
    """Return what :func:`to_bytes` was given."""
    return data.decode("utf-8", "surrogatepass")


def hash_of(data: bytes) -> Hash:
    """Return the name of a text."""
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()


def spelled_name(name: Hash) -> str:
    """Return the name of a text as events have it, in 22 characters."""
    return urlsafe_b64encode(name)[:-2].decode()


def name_spelled(spelled: str) -> Hash:
    """Return what :func:`spelled_name` was given."""
    return urlsafe_b64decode(f"{spelled}==")


class RunTexts:
    """The texts of one run on their way into the file.

    Attributes:
        fresh: What is not known to be in the file yet; taken away by who writes it.
        used: The names of all that the run uses and that were not taken away yet.
    """

    def __init__(self) -> None:
        self.fresh: list[Packed] = []
        self.used: list[Hash] = []
        self._known: set[Hash] = set()
        self._recent: deque[tuple[Hash, str, bytes]] = deque(maxlen=_RECENT)

    def put(self, text: str, near: Hash | None = None) -> Hash:
        """Return the name of a text; ``near`` is one that it is much like."""
        data = to_bytes(text)
        name = hash_of(data)
        if name in self._known:
            return name
        self._known.add(name)
        self.used.append(name)
        base = self._base(text, near) if len(data) >= _WORTH_BASING else None
        packed = _pack(name, text, data, base)
        if packed.base is not None:
            self.used.append(packed.base)
        elif len(data) >= _WORTH_BASING:
            self._recent.append((name, text, data[-_WINDOW:]))
        self.fresh.append(packed)
        return name

    def taken(self) -> tuple[list[Packed], list[Hash]]:
        """Return what is fresh and what is used, and begin anew."""
        fresh, used = self.fresh, self.used
        self.fresh, self.used = [], []
        return fresh, used

    def _base(self, text: str, near: Hash | None) -> tuple[Hash, bytes] | None:
        """Return an earlier text that much of this one is in, and the end of it."""
        third = max(1, (len(text) - _PROBE) // 3)
        probes = [text[at : at + _PROBE] for at in (third, 2 * third, third // 2)]
        for name, earlier, end in reversed(self._recent):
            if name == near or any(probe in earlier for probe in probes):
                return name, end
        return None


def _pack(name: Hash, text: str, data: bytes, base: tuple[Hash, bytes] | None) -> Packed:
    size = len(data)
    if size < _WORTH_PACKING:
        return Packed(name, text, PLAIN, size, data)
    if base is not None:
        deflate = zlib.compressobj(6, zdict=base[1])
        body = deflate.compress(data) + deflate.flush()
        if len(body) < size // 2:
            return Packed(name, text, AGAINST_BASE, size, body, base[0])
    body = zlib.compress(data, 1 if size > _LARGE else 6)
    if len(body) < size:
        return Packed(name, text, DEFLATED, size, body)
    return Packed(name, text, PLAIN, size, data)


def unpack(packed: int, size: int, body: bytes, base: Callable[[], bytes]) -> bytes:
    """Return the ``size`` bytes of a kept text; ``base`` gives those of the one that it is packed against.

    Raises:
        ValueError: If they are damaged, or more than any text that is kept.
    """
    if packed == PLAIN:
        return body
    if not 0 < size <= MOST_BYTES:
        raise ValueError(f"it says that it has {size} bytes")
    inflate = zlib.decompressobj(zdict=base()[-_WINDOW:]) if packed == AGAINST_BASE else zlib.decompressobj()
    try:
        data = inflate.decompress(body, size + 1)
    except zlib.error as exc:
        raise ValueError(str(exc)) from exc
    if len(data) != size or not inflate.eof:
        raise ValueError("it is cut off, or has more bytes than it says")
    return data


def lengths(pieces: Iterable[int]) -> bytes:
    """Return whole numbers, most of them small, as bytes: seven bits a byte, the eighth says that more follow."""
    data = bytearray()
    for number in pieces:
        left = number
        while left > 0x7F:
            data.append(left & 0x7F | 0x80)
            left >>= 7
        data.append(left)
    return zlib.compress(bytes(data), 9)


def lengths_read(data: bytes) -> list[int]:
    """Return what :func:`lengths` was given."""
    numbers, number, shift = [], 0, 0
    for byte in zlib.decompress(data):
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            number = shift = 0
    return numbers
