"""The text in a file's bytes: text itself, the text of a PDF; or why there is none."""

from __future__ import annotations

import logging
import time
from importlib import import_module
from io import BytesIO
from typing import Any, Final

from synaptic.text import NotTextError, decoded, is_marked

MAX_PAGES: Final = 2000
MAX_PDF_TEXT: Final = 8 << 20
"""Characters; a small PDF may unpack to any length."""

MAX_PDF_PAGE: Final = 8 << 20
"""Bytes of what draws one page, unpacked."""

MAX_PDF_SECONDS: Final = 60
"""Of work: a page may draw one form many times, which draws others many times."""

_SAYS: Final = logging.getLogger("pypdf")
_UNHEARD: Final = logging.NullHandler()
_PDF: Final = b"%PDF-"
_PICTURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"\x00\x00\x01\x00", "ICO"),
)


def is_binary(data: bytes) -> bool:
    """Return whether a file that begins so is passed over where a whole folder is read; a PDF is not."""
    return not data.startswith(_PDF) and (picture(data) is not None or (b"\0" in data and not is_marked(data)))


def picture(data: bytes) -> str | None:
    """Return the format of a picture, ``None`` for everything else."""
    if data[8:12] == b"WEBP" and data.startswith(b"RIFF"):
        return "WebP"
    if data[4:8] == b"ftyp" and data[8:12] in {b"heic", b"heix", b"mif1", b"avif"}:
        return "HEIF"
    found = next((name for sign, name in _PICTURES if data.startswith(sign)), None)
    return None if found == "BMP" and b"\0" not in data[:64] else found


def text_of(data: bytes, path: str) -> str:
    """Return the text in a file's bytes.

    Raises:
        ValueError: If there is none; to be read after the name of what asked for the file.
    """
    if data.startswith(_PDF):
        return _of_pdf(data, path)
    kind = picture(data)
    if kind is not None:
        raise ValueError(f"names {path}, which is a picture ({kind}), and the agents are given text alone")
    try:
        return decoded(data).replace("\r\n", "\n")
    except NotTextError as exc:
        raise ValueError(f"names {path}, which {exc.with_line()}; {exc.hint}") from None


def _of_pdf(data: bytes, path: str) -> str:
    """Return the text of a PDF, page by page; pypdf is loaded for the first one."""
    library: Any = import_module("pypdf")
    _SAYS.addHandler(_UNHEARD)  # it writes to standard error where nobody handles what it logs
    try:
        document = library.PdfReader(BytesIO(data))
        locked = document.is_encrypted and not document.decrypt("")
        pages = 0 if locked else len(document.pages)
        texts = [] if locked or pages > MAX_PAGES else _page_texts(document)
    except Exception as exc:  # whatever a broken file does to its reader
        raise ValueError(f"names {path}, which is no PDF that can be read: {str(exc) or type(exc).__name__}") from exc
    if locked:
        raise ValueError(f"names {path}, which is a PDF with a password")
    if pages > MAX_PAGES:
        raise ValueError(f"names {path}, which has {pages} pages; at most {MAX_PAGES} are read")
    text = "\n\n".join(part.strip() for part in texts if part.strip())
    if not text:
        raise ValueError(f"names {path}, which is a PDF without text; pages that were scanned are pictures")
    return text.replace("\0", "")


def _page_texts(document: Any) -> list[str]:
    texts: list[str] = []
    length = 0
    until = time.thread_time() + MAX_PDF_SECONDS

    def look_at_clock(*_: object) -> None:
        if time.thread_time() > until:
            raise ValueError(f"it is not read after {MAX_PDF_SECONDS} seconds of work")

    for page in document.pages:
        look_at_clock()
        drawn = page.get_contents()
        if drawn is not None and len(drawn.get_data()) > MAX_PDF_PAGE:
            raise ValueError(f"one of its pages is longer than {MAX_PDF_PAGE >> 20} MiB, unpacked")
        texts.append(page.extract_text(visitor_operand_before=look_at_clock))
        length += len(texts[-1])
        if length > MAX_PDF_TEXT:
            raise ValueError(f"its text is longer than {MAX_PDF_TEXT >> 20} MiB")
    return texts
