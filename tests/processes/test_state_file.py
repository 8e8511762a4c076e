"""A small file that the program wrote is read as it was written, or not at all."""

import json
from pathlib import Path

import pytest
from flipped_bytes import flip_byte

from synaptic.errors import UsageError
from synaptic.processes import read_json, replace_json, told

DOCUMENT = {"workers": [{"host": "10.0.0.4", "port": 50052, "seconds": 0.25}], "größe": None, "wide": [1e300, True]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    replace_json(file := tmp_path / "folder" / "state.json", DOCUMENT)
    return file


def test_what_was_written_is_read(file: Path):
    assert read_json(file, missing=None) == DOCUMENT
    assert read_json(file.with_name("nothing"), missing=3) == 3


def test_whichever_byte_changes_no_other_document_is_read(file: Path):
    whole = file.read_bytes()
    for place in range(len(whole)):
        for bits in (0x01, 0x04, 0x20):
            flip_byte(file, place, bits)
            try:
                read = read_json(file, missing=None)
            except ValueError:
                read = DOCUMENT
            # Where it is the key of the checksum that changed, or white space, what was written is still there.
            assert {key: value for key, value in read.items() if key in DOCUMENT} == DOCUMENT, (place, bits)
            file.write_bytes(whole)


def test_a_file_of_an_older_version_has_no_checksum_and_counts(file: Path):
    file.write_text(json.dumps(DOCUMENT))
    assert read_json(file, missing=None) == DOCUMENT


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"checksum": [3]}', '{"checksum": "0"}', "\x00"])
def test_what_is_no_document_is_an_error(file: Path, text: str):
    file.write_text(text)
    with pytest.raises(ValueError):
        read_json(file, missing=None)


@pytest.mark.parametrize("written", ["[]", "null", "5", '"text"', "true"])
def test_what_is_no_object_is_damage_to_all_who_read(tmp_path: Path, written: str) -> None:
    file = tmp_path / "state.json"
    file.write_text(written)
    with pytest.raises(ValueError, match="no object"):
        read_json(file, missing={})
    with (
        pytest.raises(UsageError, match="does not say who"),
        told(file, "which says who", "read", if_damaged="move it"),
    ):
        read_json(file, missing={})
    with (
        pytest.raises(UsageError, match="does not say who"),
        told(file, "which says who", "read", if_damaged="move it"),
    ):
        json.loads('{"a": 5}')["a"].items()
