"""The bytes of llama.cpp's RPC protocol, against what its source says, and which versions fit together."""

import struct

import pytest

from synaptic.backends.distributed.workers.protocol import (
    BEFORE_HELLO,
    Dialect,
    Endpoint,
    Party,
    ProtocolVersion,
    RpcRequest,
    Tensor,
    compatible,
    decode_count,
    decode_number,
    decode_pair,
    greeted_version,
    greetings,
)
from synaptic.errors import ConfigError

V1, V2, V3, V4 = (ProtocolVersion(major, 0, 0) for major in (1, 2, 3, 4))
V5, V6, V7 = ProtocolVersion(5, 1, 0), ProtocolVersion(6, 0, 0), ProtocolVersion(7, 0, 0)
ALL = (BEFORE_HELLO, V1, V2, V3, V4, V5, V6, V7)
VECTOR = Tensor(identity=1, kind=0, shape=(4, 1), strides=(4, 16), buffer=0xB0, address=0xDA7A)


def frames(request: RpcRequest) -> tuple[str, int | None]:
    return request.frame().hex(), request.reply_bytes


def test_the_greetings():
    new, old, oldest = greetings()
    assert frames(new) == ("0e" + "1800000000000000" + "00" * 24, 28)
    assert frames(old) == ("0e" + "0000000000000000", 3)
    assert frames(oldest) == ("01" + "0000000000000000", 8)


@pytest.mark.parametrize(
    ("greeting", "reply", "version"),
    [
        (0, bytes([7, 0, 0]) + bytes(25), V7),
        (0, bytes([4, 0, 3]) + bytes(25), ProtocolVersion(4, 0, 3)),
        (0, bytes([255, 254, 253]) + bytes(25), ProtocolVersion(255, 254, 253)),
        (0, bytes([3, 6, 1]) + bytes(25), None),
        (0, bytes(28), None),
        (1, bytes([3, 6, 1]), ProtocolVersion(3, 6, 1)),
        (1, bytes([1, 0, 0]), V1),
        (1, bytes([0, 0, 0]), None),
        (1, bytes([4, 0, 0]), None),
        (2, struct.pack("<Q", 32), BEFORE_HELLO),
    ],
)
def test_the_version_in_the_reply_to_a_greeting(greeting: int, reply: bytes, version: ProtocolVersion | None):
    assert greeted_version(greetings()[greeting], reply) == version


@pytest.mark.parametrize("version", ALL, ids=str)
def test_questions_about_devices(version: ProtocolVersion):
    dialect = Dialect(version)
    length, device = ("04", "05000000") if version >= V3 else ("00", "")
    assert dialect.counts_devices == (version >= V3)
    assert frames(dialect.device_memory(5)) == (f"0b{length}00000000000000{device}", 16)
    assert frames(dialect.alignment(5)) == (f"01{length}00000000000000{device}", 8)
    assert frames(dialect.max_size(5)) == (f"02{length}00000000000000{device}", 8)
    assert frames(dialect.device_count()) == ("0f0000000000000000", 4)


@pytest.mark.parametrize("version", ALL, ids=str)
def test_buffers(version: ProtocolVersion):
    dialect = Dialect(version)
    payload = "0c0000000000000001000000" if version >= V3 else "0800000000000000"
    assert frames(dialect.alloc_buffer(1, 0x1234)) == (f"00{payload}3412000000000000", 16)
    assert frames(dialect.buffer_base(0xB0)) == ("030800000000000000b000000000000000", 8)
    quiet = None if version >= V6 else 0
    assert frames(dialect.free_buffer(0xB0)) == ("040800000000000000b000000000000000", quiet)
    assert frames(dialect.clear_buffer(0xB0)) == ("050900000000000000b00000000000000000", quiet)


@pytest.mark.parametrize("version", ALL, ids=str)
def test_writing_and_reading_a_tensor(version: ProtocolVersion):
    dialect = Dialect(version)
    writing = dialect.set_tensor(VECTOR, b"data")
    flag = b"\0" if version >= V7 else b""
    assert writing.payload == VECTOR.pack() + flag + bytes(8) + b"data"
    assert writing.frame()[:9] == b"\x06" + struct.pack("<Q", 296 + len(flag) + 8 + 4)
    assert writing.reply_bytes == (0 if version < V2 else None)
    reading = dialect.get_tensor(VECTOR, 16)
    assert reading.frame() == b"\x08" + struct.pack("<Q", 312) + VECTOR.pack() + struct.pack("<QQ", 0, 16)
    assert reading.reply_bytes == 16


def test_a_tensor_field_by_field():
    tensor = Tensor(
        identity=0x1111,
        kind=2,
        shape=(4096, 8192),
        strides=(18, 2304),
        buffer=0x2222,
        address=0x3333,
        operation=29,
        flags=16,
        sources=(7, 9),
    )
    packed = tensor.pack()
    assert len(packed) == 296
    assert struct.unpack_from("<QIQ", packed) == (0x1111, 2, 0x2222)
    assert struct.unpack_from("<4I", packed, 20) == (4096, 8192, 1, 1)
    assert struct.unpack_from("<4I", packed, 36) == (18, 2304, 2304 * 8192, 2304 * 8192)
    assert struct.unpack_from("<I", packed, 52) == (29,)
    assert packed[56:120] == bytes(64)
    assert struct.unpack_from("<i", packed, 120) == (16,)
    assert struct.unpack_from("<10Q", packed, 124) == (7, 9, 0, 0, 0, 0, 0, 0, 0, 0)
    assert struct.unpack_from("<QQQ", packed, 204) == (0, 0, 0x3333)
    assert packed[228:] == bytes(68)


def test_graphs():
    dialect = Dialect(V7)
    request = dialect.graph_compute(1, (7, 8), (VECTOR,))
    assert request.payload == struct.pack("<IIQQI", 1, 2, 7, 8, 1) + VECTOR.pack()
    assert (request.frame()[0], request.reply_bytes) == (10, None)
    assert frames(dialect.graph_recompute(1)) == ("10040000000000000001000000", None)


def test_replies():
    assert decode_count(b"\2\0\0\0") == 2
    assert decode_number(b"\xff" * 8) == 2**64 - 1
    assert decode_pair(struct.pack("<QQ", 3, 2**40)) == (3, 2**40)


@pytest.mark.parametrize("version", [*ALL, ProtocolVersion(255, 254, 253)], ids=str)
def test_a_version_is_read_as_it_is_written(version: ProtocolVersion):
    assert ProtocolVersion.parse(str(version)) == version


@pytest.mark.parametrize("text", ["", "7", "7.0", "7.0.0.0", "v7.0.0", "7.0.x", "-7.0.0", "1111.0.0"])
def test_what_is_no_version(text: str):
    assert ProtocolVersion.parse(text) is None


def test_an_endpoint():
    assert Endpoint.parse("Desk") == Endpoint("desk", 50052)
    assert str(Endpoint.parse("10.0.0.4:7")) == "10.0.0.4:7"
    with pytest.raises(ConfigError, match="has the port '0'"):
        Endpoint.parse("desk:0")


@pytest.mark.parametrize("version", ALL, ids=str)
def test_equal_versions_fit(version: ProtocolVersion):
    fit = compatible(Party("the worker a:1", version), Party("the engine", version))
    assert fit
    assert str(version) in fit.message
    assert not fit.hint


@pytest.mark.parametrize("other", [(6, 0, 0), (7, 1, 0), (7, 0, 9), (8, 0, 0), BEFORE_HELLO])
def test_any_of_the_three_numbers_makes_a_difference(other: tuple[int, int, int]):
    worker = Party("the worker a:1", ProtocolVersion(*other))
    engine = Party("the engine of this machine", V7)
    for pair in ((worker, engine), (engine, worker)):
        fit = compatible(*pair)
        assert not fit
        for words in ("the worker a:1", str(worker.version), "the engine of this machine", "7.0.0"):
            assert words in fit.message
        older = min(worker, engine, key=lambda party: party.version)
        assert fit.hint.startswith(f"{older.name} is the older")
        assert "synaptic engine install" in fit.hint
