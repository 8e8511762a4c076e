"""FNV-1a with 64 bits, the digest by which llama.cpp names the tensors in its cache, computed with numpy.

The digest goes byte by byte, ``h = (h ^ byte) * PRIME`` modulo 2**64 (Fowler, Noll and Vo), which Python itself does
with some 10 MB a second. Only the exclusive or is not linear, and it changes the low byte ``l`` of ``h`` only:
``h ^ byte = h + d`` with ``d = (l ^ byte) - l``. So the low bytes are found first, and the rest is a sum of products,
``h * PRIME**n + d[0] * PRIME**n + d[1] * PRIME**(n - 1) + ...``.

The low bytes follow ``l = (l ^ byte) * 0xb3`` modulo 256. A bit of the next one is that bit of ``l ^ byte``, flipped
where the lower bits, multiplied, carry into it. So each bit is a running parity, once the bits below it are known.

It takes 6 to 9 ns a byte on one core; C takes 1, and would need a compiler on the user's machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from numpy.typing import NDArray

OFFSET_BASIS: Final = 0xCBF29CE484222325
PRIME: Final = 0x100000001B3
BLOCK_BYTES: Final = 1 << 19
"""What is computed at once: the arrays that it takes fit into a core's cache."""

_WORD: Final = 64  # bytes whose bits fill a machine word
_LOW_PRIME: Final = np.uint8(PRIME & 0xFF)
_PARITY_SHIFTS: Final = tuple(np.uint64(1 << power) for power in range(6))


def file_digest(file: Path, offset: int, size: int, stop: threading.Event | None = None) -> str | None:
    """Return the digest of a part of a file as 16 hexadecimal digits, ``None`` if the file ends before. Blocking.

    Offset and size are in bytes; ``stop`` ends the work within milliseconds.

    Raises:
        InterruptedError: If ``stop`` was set.
        OSError: If the file cannot be read.
    """
    digest = OFFSET_BASIS
    with file.open("rb", buffering=0) as stream:
        stream.seek(offset)
        while size:
            if stop is not None and stop.is_set():
                raise InterruptedError(f"{file} is not read to its end")
            block = stream.read(min(size, BLOCK_BYTES))
            if not block:
                return None
            digest = fnv1a(block, digest)
            size -= len(block)
    return f"{digest:016x}"


def fnv1a(data: bytes, digest: int = OFFSET_BASIS) -> int:
    """Return the digest of at most :data:`BLOCK_BYTES` bytes that follow those of which ``digest`` is one."""
    count = len(data)
    padded = np.zeros((count // _WORD + 1) * _WORD, np.uint8)
    padded[:count] = np.frombuffer(data, np.uint8)
    low = _low_bytes(padded, digest & 0xFF)
    added = (low ^ padded).astype(np.int64)
    added -= low
    total = np.dot(added[:count].view(np.uint64), _POWERS[BLOCK_BYTES - count :])
    return (digest * pow(PRIME, count, 1 << 64) + int(total)) & 0xFFFF_FFFF_FFFF_FFFF


def _low_bytes(data: NDArray[np.uint8], first: int) -> NDArray[np.uint8]:
    """Return the low byte of the digest before each byte of ``data``; ``first`` is that before the first.

    ``data`` is a multiple of 64 bytes.
    """
    low = np.zeros(len(data), np.uint8)
    flips = np.empty_like(low)
    for bit in range(8):
        mask = np.uint8(1 << bit)
        np.bitwise_xor(low, data, out=flips)
        flips &= np.uint8(mask - 1)
        flips *= _LOW_PRIME
        flips ^= data
        flips &= mask
        parity = _running_parity(np.packbits(flips, bitorder="little").view(np.uint64))
        bits = np.unpackbits(parity.view(np.uint8), bitorder="little")
        # The parity up to a byte is the bit before the next one, flipped if the first had it.
        bits ^= np.uint8(first >> bit & 1)
        bits *= mask
        low[1:] |= bits[:-1]
        low[0] |= np.uint8(first) & mask
    return low


def _running_parity(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return, for every bit, the parity of all bits up to it, the lowest bit of the first word being the first."""
    for shift in _PARITY_SHIFTS:
        words = words ^ (words << shift)
    ends = np.bitwise_xor.accumulate(words >> np.uint64(63))
    words[1:] ^= np.uint64(0) - ends[:-1]
    return words


def _powers() -> NDArray[np.uint64]:
    """Return the powers of the prime that the bytes of a whole block are multiplied with."""
    powers = np.full(BLOCK_BYTES, PRIME, np.uint64)
    return np.ascontiguousarray(np.multiply.accumulate(powers)[::-1])


_POWERS: Final = _powers()
