"""Bodies that were compressed, unpacked a piece at a time: how much comes out is known before it is there."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 256 * 1024  # bytes that are unpacked at once
_GZIP = zlib.MAX_WBITS | 16
_RAW = -zlib.MAX_WBITS
_DEFLATE = 8  # the method in the low four bits of zlib's first byte
ENCODINGS = ("gzip", "deflate")


class PackedBody:
    """Unpacks one body; an encoding of "" or ``identity`` hands it on as it is.

    Raises:
        ValueError: If the encoding is not known; its text says so.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding.strip().lower().removeprefix("x-")
        if self._encoding not in {"", "identity", *ENCODINGS}:
            raise ValueError(f"Content-Encoding {encoding!r} is not known here; send gzip, deflate or no such header")
        self._packer = zlib.decompressobj(_GZIP) if self._encoding == "gzip" else None
        self._begun = False

    @property
    def is_packed(self) -> bool:
        """Whether anything has to be unpacked at all."""
        return self._encoding in ENCODINGS

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` unpacks to, in pieces of at most :data:`PIECE` bytes.

        Raises:
            ValueError: If it is not of that encoding, or goes on after its end.
        """
        if not self.is_packed:
            yield data
            return
        if self._packer is None:  # some clients leave out the header that the standard asks for
            self._packer = zlib.decompressobj(zlib.MAX_WBITS if data[0] & 0x0F == _DEFLATE else _RAW)
        try:
            while data and not self._packer.eof:
                yield self._packer.decompress(data, PIECE)
                data = self._packer.unconsumed_tail
        except zlib.error as error:
            raise ValueError(f"the body is not {self._encoding}, as its Content-Encoding says") from error
        if self._packer.unused_data or data:
            raise ValueError(f"the body goes on after the end of what was packed as {self._encoding}")

    def end(self) -> None:
        """Say that nothing more comes.

        Raises:
            ValueError: If something is missing.
        """
        if self.is_packed and (self._packer is None or not self._packer.eof):
            raise ValueError(f"the body ends before what was packed as {self._encoding} does")
