"""The header of a GGUF file: equal to what the gguf library reads, cheap, and every wrong file is named as wrong."""

import os
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf_support import write_gguf

from synaptic.errors import ExitCode, ModelFileError
from synaptic.models import gguf_header
from synaptic.models.gguf_header import read_header


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "small.gguf", values={"general.name": "a model"})


def patched(small: Path, target: Path, *patches: tuple[int, bytes]) -> Path:
    content = bytearray(small.read_bytes())
    for offset, patch in patches:
        content[offset : offset + len(patch)] = patch
    target.write_bytes(content)
    return target


def test_it_reads_what_the_gguf_library_reads(small: Path):
    header = read_header(small)
    reader = gguf.GGUFReader(small)
    assert [(t.name, t.type_name, t.offset, t.size, t.elements, t.dimensions) for t in header.tensors] == [
        (t.name, t.tensor_type.name, t.data_offset, t.n_bytes, t.n_elements, tuple(t.shape)) for t in reader.tensors
    ]
    read = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    kept = {key: value for key, value in read.items() if not (isinstance(value, list) and isinstance(value[0], str))}
    assert dict(header.values) == kept
    assert header.lengths == {key: len(value) for key, value in read.items() if isinstance(value, list)}
    assert header.file_size == small.stat().st_size


@pytest.mark.parametrize("type_", ["F32", "BF16", "Q8_0", "Q4_0", "Q5_1", "TQ1_0"])
def test_sizes_of_all_kinds_of_tensors_are_those_of_the_library(tmp_path: Path, type_: str):
    kind = gguf.GGMLQuantizationType[type_]
    file = write_gguf(tmp_path / "m.gguf", layers=[{"ffn_up.weight": (3, 512)}], type_=gguf.GGMLQuantizationType.F32)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_tensor("a", gguf.quants.quantize(np.ones((3, 512), np.float32), kind), raw_dtype=kind)
    writer.add_tensor("b", np.ones(5, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert [(t.offset, t.size) for t in read_header(file).tensors] == [
        (t.data_offset, t.n_bytes) for t in gguf.GGUFReader(file).tensors
    ]


def test_every_kind_of_value_is_read_and_long_ones_are_stepped_over(tmp_path: Path):
    file = tmp_path / "values.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    scalars = {
        gguf.GGUFValueType.UINT8: 200,
        gguf.GGUFValueType.INT8: -3,
        gguf.GGUFValueType.UINT16: 60_000,
        gguf.GGUFValueType.INT16: -30_000,
        gguf.GGUFValueType.UINT32: 4_000_000_000,
        gguf.GGUFValueType.INT32: -2_000_000_000,
        gguf.GGUFValueType.FLOAT32: 0.5,
        gguf.GGUFValueType.UINT64: 1 << 63,
        gguf.GGUFValueType.INT64: -(1 << 62),
        gguf.GGUFValueType.FLOAT64: 1e-300,
        gguf.GGUFValueType.BOOL: True,
        gguf.GGUFValueType.STRING: "größer",
    }
    for kind, value in scalars.items():
        writer.add_key_value(f"a.{kind.name}", value, kind)
    writer.add_string("template", "x" * 400_000)
    writer.add_array("texts", ["y" * 300_000, "", "z"] * 3)
    writer.add_array("scores", [0.25] * 5000)
    writer.add_array("few", [1, 2, 3])
    writer.add_uint32("last", 7)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(file)
    assert {key: header.values[key] for key in header.values if key.startswith("a.")} == {
        f"a.{kind.name}": value for kind, value in scalars.items()
    }
    assert header.values["few"] == [1, 2, 3] and header.values["last"] == 7
    assert not {"template", "texts", "scores"} & header.values.keys()
    assert header.lengths == {"template": 400_000, "texts": 9, "scores": 5000, "few": 3}
    whole = read_header(file, whole=True)
    assert whole.values == header.values | {
        "template": "x" * 400_000,
        "texts": ["y" * 300_000, "", "z"] * 3,
        "scores": [0.25] * 5000,
    }
    assert whole.tensors == header.tensors


def test_alignment_is_that_of_the_file(tmp_path: Path):
    file = tmp_path / "aligned.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_custom_alignment(256)
    writer.add_tensor("a", np.ones(5, np.float32))
    writer.add_tensor("b", np.ones(5, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert [t.offset for t in read_header(file).tensors] == [t.data_offset for t in gguf.GGUFReader(file).tensors]


def start(version: int = 3, tensors: int = 0, values: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, values) + rest


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def value(kind: int, rest: bytes, key: str = "key") -> bytes:
    return text(key) + struct.pack("<I", kind) + rest


def tensor(name: str, dimensions: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)


WRONG = {
    "empty": (b"", "is empty"),
    "html": (b"<!DOCTYPE html>", r"not a GGUF file: it starts with b'<!DO'"),
    "short": (b"GG", "not a GGUF file"),
    "only magic": (b"GGUF", "cut off: it has 4 bytes, and 4 more bytes of its header"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "version 1": (start(1), "version 1;"),
    "version 4": (start(4), "version 4;"),
    "2^60 tensors": (start(tensors=1 << 60), "says that it has 1152921504606846976 tensors"),
    "2^60 values": (start(values=1 << 60), "says that it has 1152921504606846976 values"),
    "cut in values": (start(values=3), "8 more bytes of its header are missing"),
    "cut in tensors": (start(tensors=100_000), "8 more bytes of its header are missing"),
    "long key": (start(values=1, rest=struct.pack("<Q", 1 << 40)), "a key is said to be 1099511627776 bytes"),
    "long text": (start(values=1, rest=value(8, struct.pack("<Q", 1 << 60))), "cut off"),
    "twice": (start(values=2, rest=value(4, bytes(4)) * 2), "'key' is there twice"),
    "unknown kind": (start(values=1, rest=value(13, bytes(8))), "of kind 13"),
    "array of arrays": (start(values=1, rest=value(9, struct.pack("<IQ", 9, 1) + bytes(32))), "of kind 9"),
    "2^60 numbers": (start(values=1, rest=value(9, struct.pack("<IQ", 4, 1 << 60))), "cut off"),
    "2^60 texts": (start(values=1, rest=value(9, struct.pack("<IQ", 8, 1 << 60))), "cut off"),
    "texts cut": (start(values=1, rest=value(9, struct.pack("<IQ", 8, 3) + text("one") + bytes(7))), "cut off"),
    "last text cut": (start(values=1, rest=value(9, struct.pack("<IQ", 8, 1) + text("one")[:-1])), "1 more bytes"),
    "alignment": (start(values=1, rest=value(4, struct.pack("<I", 33), "general.alignment")), "not a power of two"),
    "no alignment": (start(values=1, rest=value(4, struct.pack("<I", 0), "general.alignment")), "not a power of two"),
    "long tensor name": (start(tensors=1, rest=tensor("n" * 64, (1,))), "name is said to be 64 bytes"),
    "5 dimensions": (start(tensors=1, rest=tensor("t", (1, 1, 1, 1, 1))), "5 dimensions"),
    "same tensor": (start(tensors=2, rest=tensor("t", (8,)) + tensor("t", (8,), offset=32)), "t is there twice"),
    "gone type": (start(tensors=1, rest=tensor("t", (32,), kind=4)), "of type 4, which"),
    "huge": (start(tensors=1, rest=tensor("t", (1 << 40, 1 << 40))), "which F32 cannot be"),
    "block": (start(tensors=1, rest=tensor("t", (33,), kind=2)), "t is 33, which Q4_0 cannot be"),
    "overlap": (
        start(tensors=2, rest=tensor("t", (8,)) + tensor("u", (8,), offset=0)),
        "0 of the data instead of at 32",
    ),
    "no data": (start(tensors=1, rest=tensor("t", (8,))), "more bytes of its tensors are missing"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_the_path(tmp_path: Path, name: str):
    content, message = WRONG[name]
    file = tmp_path / "wrong.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelFileError, match=message) as caught:
        read_header(file)
    assert str(file) in caught.value.message
    assert caught.value.exit_code == ExitCode.NO_BACKEND and not caught.value.retryable


def test_a_file_that_is_cut_off_says_how_many_bytes_are_missing(small: Path, tmp_path: Path):
    cut = tmp_path / "cut.gguf"
    content = small.read_bytes()
    reader = gguf.GGUFReader(small)
    end = max(tensor.data_offset + tensor.n_bytes for tensor in reader.tensors)
    cut.write_bytes(content[: end - 1000])
    with pytest.raises(ModelFileError, match=f"it has {end - 1000} bytes, and 1000 more bytes of its tensors"):
        read_header(cut)
    cut.write_bytes(content[:end])
    assert len(read_header(cut).tensors) == len(reader.tensors)


def test_more_texts_than_any_vocabulary_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gguf_header, "MOST_STRINGS", 10)
    file = tmp_path / "texts.gguf"
    file.write_bytes(start(values=1, rest=value(9, struct.pack("<IQ", 8, 11) + bytes(100))))
    with pytest.raises(ModelFileError, match="an array has 11 texts"):
        read_header(file)


def test_a_directory_and_a_file_that_may_not_be_read(tmp_path: Path, small: Path, as_nobody: None):
    with pytest.raises(ModelFileError, match="is a directory"):
        read_header(Path("/"))
    with pytest.raises(ModelFileError, match="may not be read by you") as caught:
        read_header(small)
    assert "chmod" in (caught.value.hint or "")


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelFileError, match="it is a pipe, not a regular file"):
        read_header(tmp_path / "pipe.gguf")


def test_another_failure_of_the_system_is_named(tmp_path: Path):
    loop = tmp_path / "loop.gguf"
    loop.symlink_to(loop)
    with pytest.raises(ModelFileError, match="cannot be read: Too many levels"):
        read_header(loop)


@pytest.fixture
def as_nobody(small: Path):
    """Be somebody who may read nothing of this test; whoever is not root closes the file instead."""
    if os.geteuid() == 0:
        read_header(small)  # what is imported on demand could not be imported then
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        small.chmod(0)
        yield
        small.chmod(0o644)


def test_a_large_vocabulary_costs_little(tmp_path: Path):
    """The library's reader makes some 180 000 arrays of this one; ours keeps nothing of it."""
    import tracemalloc

    file = tmp_path / "large.gguf"
    count = 30_000
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_token_list([f"token{number}" for number in range(count)])
    writer.add_token_scores([0.5] * count)
    writer.add_token_merges([f"a{number} b{number}" for number in range(count * 2)])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tracemalloc.start()
    header = read_header(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert header.lengths["tokenizer.ggml.merges"] == 2 * count
    assert peak < 4 * gguf_header.WINDOW
