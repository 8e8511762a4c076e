"""Compressed bodies: what comes out, a piece at a time, and what is refused."""

import gzip
import zlib

import pytest

from synaptic.server.limits.unpacking import PIECE, PackedBody

TEXT = b"a body " * 100_000
RAW = zlib.compress(TEXT)[2:-4]


def unpacked(encoding, data, step=1000):
    packed = PackedBody(encoding)
    whole = [piece for at in range(0, len(data), step) for piece in packed.pieces(data[at : at + step])]
    packed.end()
    assert all(len(piece) <= PIECE for piece in whole) or not packed.is_packed
    return b"".join(whole)


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("gzip", gzip.compress(TEXT)),
        ("X-GZIP", gzip.compress(TEXT)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", RAW),
    ],
    ids=["no encoding", "identity", "gzip", "x-gzip", "zlib", "deflate"],
)
@pytest.mark.parametrize("step", [1, 7, 10_000_000])
def test_a_body_comes_out_as_it_was(encoding, data, step):
    if len(data) < len(TEXT) or step > 1:
        assert unpacked(encoding, data, step) == TEXT


@pytest.mark.parametrize(
    ("encoding", "data", "said"),
    [
        ("br", b"", "Content-Encoding 'br' is not known here"),
        ("gzip, gzip", b"", "'gzip, gzip' is not known"),
        ("gzip", b"{}", "is not gzip"),
        ("gzip", gzip.compress(TEXT)[:-1], "ends before"),
        ("gzip", gzip.compress(TEXT) * 2, "goes on after the end"),
        ("gzip", gzip.compress(b"")[:10], "ends before"),
        ("deflate", b"", "ends before"),
        ("deflate", b"\x78\x9cno", "is not deflate"),
        ("deflate", zlib.compress(TEXT) + b"x", "goes on after the end"),
    ],
    ids=["br", "two", "no gzip", "cut", "twice", "header", "nothing", "no deflate", "more"],
)
def test_what_is_not_what_the_header_says_is_refused(encoding, data, said):
    with pytest.raises(ValueError, match=said):
        unpacked(encoding, data)


def test_no_more_is_unpacked_than_was_asked_for():
    bomb = gzip.compress(bytes(50_000_000))
    pieces = PackedBody("gzip").pieces(bomb)

    assert len(next(pieces)) <= PIECE
    assert len(next(pieces)) <= PIECE
