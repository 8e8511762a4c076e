"""A model that is not what was fetched is found, and not used; what cannot be known is said."""

import asyncio
import hashlib
import json
from pathlib import Path

import pytest
from cli_support import ollama, run_here
from fault_server import json_reply
from flipped_bytes import flip_byte, settle
from gguf_support import write_gguf

from synaptic.errors import ModelFileError, ModelNotFound
from synaptic.messages import BackendReport, ignore_report
from synaptic.models import check_model, doubt_about, known_damage, verify_models
from synaptic.models.verified import Verified, expected_digest

KIND = "application/vnd.ollama.image.model"


@pytest.fixture(autouse=True)
def no_embedded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    """The weights of ``tiny`` in a store of Ollama's."""
    content = write_gguf(tmp_path / "Own model.gguf").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    blob = tmp_path / "store" / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(content)
    for name in ("tiny", "twin"):
        manifest = tmp_path / "store" / "manifests" / "models.example" / "library" / name / "latest"
        manifest.parent.mkdir(parents=True)
        layer = {"mediaType": KIND, "digest": f"sha256:{digest}", "size": len(content)}
        manifest.write_text(json.dumps({"layers": [layer]}))
    settle(blob)
    return blob


async def verified(blob: Path, name: str | None = None) -> list[Verified]:
    environ = {"HOME": str(blob.parent), "OLLAMA_MODELS": str(blob.parents[1])}
    return [found async for found in verify_models(name, ignore_report, environ=environ)]


async def test_models_are_read_and_compared_with_the_digest_in_their_names(blob: Path):
    assert [(found.name, found.status) for found in await verified(blob)] == [
        ("tiny:latest", "whole"),
        ("twin:latest", "whole"),
    ]
    flip_byte(blob, -100)
    found = (await verified(blob, "tiny"))[0]
    assert (found.status, found.file) == ("damaged", blob)
    assert found.sha256 != found.expected
    assert "SHA-256" in found.detail
    assert "ollama pull tiny" in found.fix


async def test_a_model_that_cannot_even_be_found_counts_as_damaged(blob: Path):
    blob.write_bytes(b"GGUF")
    found = await verified(blob)
    assert [(one.status, one.file) for one in found] == [("damaged", None)] * 2
    assert "bytes are missing" in found[0].detail


async def test_a_file_without_a_digest_is_unknown_and_an_absent_model_an_error(blob: Path, tmp_path: Path):
    own = tmp_path / "Own model.gguf"
    [found] = await verified(blob, str(own))
    assert (found.status, found.expected) == ("unknown", None)
    assert found.sha256 == hashlib.sha256(own.read_bytes()).hexdigest()
    with pytest.raises(ModelNotFound):
        await verified(blob, "nothing")


async def test_a_damaged_model_is_not_loaded_and_a_whole_one_read_once(blob: Path, monkeypatch: pytest.MonkeyPatch):
    reports: list[BackendReport] = []
    await check_model("tiny", [blob], reports.append, backend="distributed")
    with monkeypatch.context() as patched:
        patched.setattr("synaptic.processes.digests.sha256_of", lambda *_: pytest.fail("it was read again"))
        await check_model("tiny", [blob], reports.append, backend="distributed")
    flip_byte(blob, 100)
    with pytest.raises(ModelFileError, match=f"tiny is damaged: {blob}") as caught:
        await check_model("tiny", [blob], reports.append, backend="distributed")
    assert "ollama pull tiny" in (caught.value.hint or "")
    assert known_damage("tiny", [blob]) is None  # what was just written to is read again before anything is said of it
    settle(blob)
    with pytest.raises(ModelFileError):
        await check_model("tiny", [blob], ignore_report, backend="distributed")
    assert "tiny is damaged" in str(known_damage("tiny", [blob]))


def test_the_cache_of_hugging_face_names_what_a_link_leads_to(tmp_path: Path):
    digest = "a" * 64
    (tmp_path / digest).write_bytes(b"GGUF")
    (tmp_path / "model.gguf").symlink_to(digest)
    assert expected_digest(tmp_path / "model.gguf") == digest
    assert expected_digest(tmp_path / "other.gguf") is None


def test_a_list_says_without_reading_that_a_model_may_be_another(blob: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OLLAMA_MODELS", str(blob.parents[1]))
    assert doubt_about("tiny") is None
    asyncio.run(verified(blob))
    assert doubt_about("tiny") is None
    assert doubt_about("nothing") is None
    flip_byte(blob, -100)
    assert "has changed since it was read last" in str(doubt_about("tiny"))
    settle(blob)
    asyncio.run(verified(blob))
    assert "SHA-256" in str(doubt_about("tiny"))

    served = {"models": [{"name": name, "size": 1000, "details": {}} for name in ("tiny:latest", "other:latest")]}
    with ollama(json_reply({}), tags=json_reply(served), show=json_reply({})) as node:
        there = ("--set", f'nodes=["{node.url}"]')
        shown, document = (run_here("models", "list", *there, *more) for more in ((), ("--json",)))
    assert "tiny:latest: " in shown.err
    assert "synaptic models verify tiny" in shown.err
    doubts = {model["name"]: model["doubt"] for model in json.loads(document.out)["models"]}
    assert "SHA-256" in doubts["tiny:latest"]
    assert doubts["other:latest"] is None
