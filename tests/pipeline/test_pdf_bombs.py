"""PDFs of a few KB that unpack to very much: their reading ends."""

import zlib

import pytest

from synaptic.pipeline import file_texts
from synaptic.pipeline.file_texts import text_of

SAYS = b"BT /F 1 Tf (a) Tj ET\n"
FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


def pdf(*objects: bytes) -> bytes:
    """A file with these objects, the first its catalogue."""
    file, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(b"%010d 00000 n \n" % len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, b"".join(places))
    return file + table + b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, len(file))


def packed(drawn: bytes, more: bytes = b"") -> bytes:
    body = zlib.compress(drawn, 9)
    return b"<< /Length %d /Filter /FlateDecode %s >>\nstream\n%s\nendstream" % (len(body), more, body)


def forms(depth: int) -> bytes:
    """One page that draws a form twice, which draws another one twice, and so on."""
    draws = b"/Resources << /Font << /F 4 0 R >> /XObject << /X %d 0 R >> >>"
    inner = [
        packed(SAYS + b"/X Do /X Do", b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] " + draws % (7 + each))
        for each in range(depth)
    ]
    last = packed(SAYS, b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /Font << /F 4 0 R >> >>")
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 5 0 R %s >>" % (draws % 6)
    pages = b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>"
    return pdf(b"<< /Type /Catalog /Pages 2 0 R >>", pages, page, FONT, packed(SAYS + b"/X Do /X Do"), *inner, last)


def pages(drawn: bytes, count: int) -> bytes:
    """Pages that all draw the same."""
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << /Font << /F 3 0 R >> >> >>"
    kids = b" ".join(b"%d 0 R" % (5 + each) for each in range(count))
    tree = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (count, kids)
    return pdf(b"<< /Type /Catalog /Pages 2 0 R >>", tree, FONT, packed(drawn), *([page] * count))


def test_forms_and_pages_that_are_no_bomb_are_read():
    assert text_of(forms(3), "x.pdf").split() == ["a"] * 31
    assert text_of(pages(SAYS, 3), "x.pdf").split() == ["a"] * 3


def test_forms_within_forms_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(file_texts, "MAX_PDF_SECONDS", 0.5)
    with pytest.raises(ValueError, match=r"names x\.pdf, .* not read after 0\.5 seconds of work"):
        text_of(forms(40), "x.pdf")


def test_many_pages_of_one_long_drawing_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(file_texts, "MAX_PDF_SECONDS", 0.5)
    with pytest.raises(ValueError, match=r"not read after 0\.5 seconds of work"):
        text_of(pages(SAYS * 5000, 2000), "x.pdf")


def test_a_page_is_not_longer_than_a_bound():
    with pytest.raises(ValueError, match="one of its pages is longer than 8 MiB"):
        text_of(pages(SAYS * 500_000, 1), "x.pdf")
