"""The text in bytes that a person gives: UTF-8, UTF-16 or UTF-32 with its mark; or why there is none, and what to do.

Windows writes UTF-16 where nobody asked for it (`>` in PowerShell, "Unicode" in Notepad), always with a mark.
"""

from __future__ import annotations

import codecs
from typing import Final

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_PROGRAMS_FILES: Final = (
    (b"PK\x03\x04", "a ZIP archive, as documents of office programs are", "save it as text, or as PDF"),
    (b"\xd0\xcf\x11\xe0", "a document of an office program", "save it as text, or as PDF"),
    (b"\x1f\x8b", "compressed with gzip", "gunzip it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unzstd it"),
    (b"\xfd7zXZ\x00", "compressed with xz", "unxz it"),
    (b"BZh", "compressed with bzip2", "bunzip2 it"),
    (b"\x7fELF", "a program", "give text"),
    (b"SQLite format 3\x00", "a database of SQLite", "give text, as sqlite3 FILE .dump writes it"),
    (b"7z\xbc\xaf\x27\x1c", "an archive of 7-Zip", "unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it"),
    (b"GGUF", "a model (GGUF)", "give it as the model: -m FILE"),
    (b"MZ", "a program", "give text"),
    (b"\x00\x01\x00\x00", "a font", "give text"),
    (b"OTTO", "a font", "give text"),
    (b"wOF", "a font", "give text"),
)
_SOUNDS: Final = (
    (0, b"ID3", "MP3"),
    (0, b"\xff\xfb", "MP3"),
    (0, b"\xff\xf3", "MP3"),
    (0, b"\xff\xf2", "MP3"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (4, b"ftypM4A", "M4A"),
    (8, b"WAVE", "WAV"),
    (8, b"AIFF", "AIFF"),
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "Ogg"),
    (0, b"#!AMR", "AMR"),
    (0, b"MThd", "MIDI"),
)
_FILMS: Final = (
    (4, b"ftyp", "MP4 or QuickTime"),
    (4, b"moov", "QuickTime"),
    (4, b"mdat", "QuickTime"),
    (8, b"AVI ", "AVI"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (0, b"FLV\x01", "Flash"),
    (0, b"\x30\x26\xb2\x75", "Windows Media"),
    (0, b"\x00\x00\x01\xba", "MPEG"),
    (0, b"\x00\x00\x01\xb3", "MPEG"),
)
_SAMPLE: Final = 4096


class NotTextError(ValueError):
    """Bytes that are no text that can be read; the message goes after the name of what holds them.

    Attributes:
        line: Of the first byte that is no text, from 1.
        column: The same in characters.
    """

    def __init__(self, message: str, hint: str, place: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.line, self.column = place or (1, 1)
        self._placed = place is not None

    def with_line(self) -> str:
        """Return the message with the line, where it is one place that is no text and not the whole."""
        return f"{self} (line {self.line})" if self._placed else str(self)


def is_marked(data: bytes) -> bool:
    """Return whether bytes begin with a byte order mark."""
    return any(data.startswith(mark) for mark, _, _ in _MARKS)


def decoded(data: bytes) -> str:
    """Return the text in ``data``, without its byte order mark.

    Raises:
        NotTextError: If it is neither UTF-8, nor UTF-16 or UTF-32 with a mark, or holds NUL characters.
    """
    codec, name = next(((codec, name) for mark, codec, name in _MARKS if data.startswith(mark)), ("utf-8", "UTF-8"))
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as exc:
        raise _undecodable(data, exc, name) from None
    at = text.find("\0")
    if at < 0:
        return text
    if (known := _known_file(data)) is not None:
        raise known
    if (unmarked := _unmarked_utf16(data)) is not None:
        raise _other_encoding("UTF-16 without a byte order mark", unmarked)
    raise NotTextError("is no text: it holds NUL characters", "give text", _place(text[:at]))


def _undecodable(data: bytes, exc: UnicodeDecodeError, name: str) -> NotTextError:
    if (known := _known_file(data)) is not None:
        return known
    if name != "UTF-8":
        return NotTextError(f"begins with the mark of {name} but is no {name} text", "save it as UTF-8")
    if (unmarked := _unmarked_utf16(data)) is not None:
        return _other_encoding("UTF-16 without a byte order mark", unmarked)
    hint = "save it as UTF-8"
    if _is_windows_text(data[exc.start :]):
        hint += "; if it is from Windows, iconv -f WINDOWS-1252 -t UTF-8 FILE converts it"
    return NotTextError("is not UTF-8 text", hint, _place(data[: exc.start].decode("utf-8-sig")))


def _known_file(data: bytes) -> NotTextError | None:
    """Return what is wrong with bytes that begin as a file of a known kind that is no text; ``None`` for others."""
    if _is_windows_text(data):
        return None  # "OTTO" begins a font, and letters to a person of that name
    for sign, what, hint in _PROGRAMS_FILES:
        if data.startswith(sign):
            return NotTextError(f"is not UTF-8 text but {what}", hint)
    for what, kinds in (("sound", _SOUNDS), ("a film", _FILMS)):
        for at, sign, kind in kinds:
            if data.startswith(sign, at):
                hint = "sound and films cannot be read; give what is said in it as text"
                return NotTextError(f"is not text but {what} ({kind})", hint)
    return None


def _other_encoding(name: str, codec: str) -> NotTextError:
    return NotTextError(f"is not UTF-8 text but {name}", f"save it as UTF-8, or iconv -f {codec} -t UTF-8 FILE")


def _place(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _unmarked_utf16(data: bytes) -> str | None:
    """Return the encoding of text that is UTF-16, where every second byte of most languages' letters is 0."""
    sample = data[:_SAMPLE]
    half = len(sample) // 2
    for codec, high in (("UTF-16LE", sample[1::2]), ("UTF-16BE", sample[::2])):
        if half > 1 and high.count(0) > half // 2 and sample.count(0) <= half + 1:
            return codec
    return None


def _is_windows_text(data: bytes) -> bool:
    """Return whether what is no UTF-8 may be text of one byte a letter: without control characters."""
    return not any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in data[:_SAMPLE])
