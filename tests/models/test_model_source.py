"""From a name to a model's files: paths, models in stores of Ollama's, the embedded model; and what is said if not."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf_support import write_gguf

from synaptic.errors import ExitCode, ModelFileError, ModelNotFound, UsageError
from synaptic.models.download import ModelStore
from synaptic.models.model_source import find_model, is_path, list_models, open_model
from synaptic.models.ollama_store import (
    PROJECTOR_IGNORED,
    OllamaName,
    look_in,
    parse_name,
    store_places,
)

HOST = "models.example"  # of Ollama's own library, in these tests
OTHER = "mirror.example"
KIND = "application/vnd.ollama.image."
NOWHERE = {"HOME": "/nowhere/at/all"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "Tiny model.gguf")


@pytest.fixture
def no_embedded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine where the embedded model was never fetched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty cache"))


class Store:
    """A store of Ollama's."""

    def __init__(self, directory: Path, model: Path) -> None:
        self.directory = directory
        self.content = model.read_bytes()

    @property
    def environ(self) -> dict[str, str]:
        return {**NOWHERE, "OLLAMA_MODELS": str(self.directory)}

    def blob(self, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs = self.directory / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        (blobs / f"sha256-{digest}").write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    def add(self, place: str, *, content: bytes | None = None, others: tuple[str, ...] = ("license",)) -> Path:
        """Add a model under host/namespace/model/tag; return its blob's path."""
        weights = {"mediaType": KIND + "model", **self.blob(self.content if content is None else content)}
        layers = [weights] + [{"mediaType": KIND + kind, **self.blob(kind.encode())} for kind in others]
        self.manifest(place, json.dumps({"schemaVersion": 2, "config": {}, "layers": layers}))
        return self.directory / "blobs" / weights["digest"].replace(":", "-")

    def manifest(self, place: str, text: str) -> None:
        file = self.directory / "manifests" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def store(tmp_path: Path, model: Path) -> Store:
    return Store(tmp_path / "ollama models", model)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("llama3", ("", "library", "llama3", "latest")),
        ("llama3:8b", ("", "library", "llama3", "8b")),
        ("library/llama3:8b", ("", "library", "llama3", "8b")),
        ("user/model:tag", ("", "user", "model", "tag")),
        ("host.example:5000/ns/model:tag", ("host.example:5000", "ns", "model", "tag")),
        ("hf.co/org/repo-GGUF:Q4_K_M", ("hf.co", "org", "repo-GGUF", "Q4_K_M")),
        ("a/b/c/d", None),
        ("", None),
        ("../../etc", None),
        ("a b", None),
        ("x/", None),
        ("x/:y", None),
    ],
)
def test_names_are_read_as_ollama_reads_them(text: str, expected: tuple[str, str, str, str] | None):
    name = parse_name(text)
    if expected is None:
        assert name is None
    else:
        host, namespace, model, tag = expected
        assert name == OllamaName(host=host, namespace=namespace, model=model, tag=tag)


PLACES = {
    "llama3": "{HOST}/library/llama3/latest",
    "llama3:latest": "{HOST}/library/llama3/latest",
    "library/llama3": "{HOST}/library/llama3/latest",
    "{HOST}/library/llama3": "{HOST}/library/llama3/latest",
    "llama3:8b": "{HOST}/library/llama3/8b",
    "user/model:tag": "{HOST}/user/model/tag",
    "{OTHER}/ns/model:tag": "{OTHER}/ns/model/tag",
    "hf.co/Org/Repo-GGUF:q4_k_m": "hf.co/Org/Repo-GGUF/Q4_K_M",
    "LLAMA3:8B": "{HOST}/library/llama3/8b",
}


@pytest.mark.parametrize("name", PLACES)
async def test_a_name_of_ollamas_leads_to_its_weights(store: Store, name: str):
    for number, place in enumerate(sorted(set(PLACES.values()))):
        blob = store.add(place.format(HOST=HOST, OTHER=OTHER), content=store.content + bytes(number))
        if place == PLACES[name]:
            expected = blob
    called = name.format(HOST=HOST, OTHER=OTHER)
    shape = await open_model(called, environ=store.environ)
    assert shape.file == expected
    assert shape.name == called
    assert len(shape.layers) == 2


async def test_old_stores_have_colons_in_the_names_of_blobs(store: Store):
    blob = store.add(f"{HOST}/library/old/latest")
    renamed = blob.rename(blob.with_name(blob.name.replace("-", ":")))
    assert (await open_model("old", environ=store.environ)).file == renamed


async def test_the_process_environment_is_the_one_that_counts_without_another(
    store: Store, monkeypatch: pytest.MonkeyPatch, own_home: Path
):
    monkeypatch.setenv("OLLAMA_MODELS", str(store.directory))
    store.add(f"{HOST}/library/llama3/latest")
    assert (await open_model("llama3")).architecture == "llama"
    assert "llama3:latest" in {info.name for info in await list_models()}


def test_places_are_looked_at_in_order_and_the_named_one_first(store: Store, tmp_path: Path, model: Path):
    home = Store(tmp_path / "home" / ".ollama" / "models", model)
    environ = {"HOME": str(tmp_path / "home"), "OLLAMA_MODELS": str(store.directory)}
    second = home.add(f"{HOST}/library/llama3/latest", content=b"GGUF of home")
    only = home.add(f"{HOST}/library/other/latest", content=b"GGUF, another")
    first = store.add(f"{HOST}/library/llama3/latest")
    assert find_model("llama3", environ).files == (first,)
    assert find_model("other", environ).files == (only,)
    assert find_model("llama3", {"USERPROFILE": environ["HOME"]}).files == (second,)
    places = store_places({"HOME": "/h", "OLLAMA_MODELS": "~/models"})
    assert places[:2] == (Path("/h/models"), Path("/h/.ollama/models"))
    assert Path("/usr/share/ollama/.ollama/models") in places


def test_a_name_without_host_means_ollamas_own_library_first(store: Store):
    for tag in ("a", "b"):
        mine = store.add(f"{HOST}/library/llama3/{tag}")
    store.add(f"{OTHER}/library/llama3/b", content=b"GGUF elsewhere")
    assert find_model("llama3:b", store.environ).files == (mine,)
    store.add("one.example/ns/model/latest")
    store.add("two.example/ns/model/latest")
    with pytest.raises(UsageError, match="means several models") as caught:
        find_model("ns/model", store.environ)
    assert "one.example/ns/model:latest, two.example/ns/model:latest" in (caught.value.hint or "")


def test_a_projector_is_left_out_and_an_adapter_is_refused(store: Store):
    store.add(f"{HOST}/library/vision/latest", others=("projector", "template"))
    store.add(f"{HOST}/library/tuned/latest", others=("adapter",))
    assert find_model("vision", store.environ).notes == (PROJECTOR_IGNORED,)
    with pytest.raises(ModelFileError, match=r"the model tuned has an adapter \(LoRA\)"):
        find_model("tuned", store.environ)


def test_of_several_weights_the_largest_is_the_model(store: Store):
    store.add(f"{HOST}/library/pair/latest")
    file = store.directory / "manifests" / HOST / "library" / "pair" / "latest"
    manifest = json.loads(file.read_text())
    manifest["layers"].append({"mediaType": KIND + "model", **store.blob(b"GGUF draft")})
    file.write_text(json.dumps(manifest))
    assert find_model("pair", store.environ).files[0].read_bytes() == store.content


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("", "cannot be used"),
        ("[]", "cannot be used"),
        ("{}", "cannot be used"),
        ('{"layers": [{"mediaType": "x"}]}', "cannot be used"),
        ("[" * 100_000, "cannot be used"),
        ('{"layers": []}', "runs in a cloud"),
        ('{"layers": null}', "runs in a cloud"),
        (json.dumps({"layers": [{"mediaType": KIND + "tensor", "digest": "sha256:0", "size": 1}]}), "single tensors"),
        (json.dumps({"layers": [{"mediaType": KIND + "params", "digest": "sha256:0", "size": 1}]}), "are params"),
        (json.dumps({"layers": [{"mediaType": KIND + "model", "digest": "../../x", "size": 1}]}), "is no digest"),
        (
            json.dumps({"layers": [{"mediaType": KIND + "model", "digest": "sha256:" + "0" * 64, "size": 1}]}),
            "weights of odd are not there",
        ),
    ],
)
async def test_manifests_that_lead_nowhere(store: Store, manifest: str, message: str):
    store.manifest(f"{HOST}/library/odd/latest", manifest)
    with pytest.raises(ModelFileError, match=message):
        await open_model("odd", environ=store.environ)
    assert "odd:latest" not in {info.name for info in await list_models(store.environ)} or "digest" in manifest


@pytest.mark.parametrize(("change", "message"), [(-7, "7 bytes are missing"), (5, "5 bytes too many")])
async def test_a_blob_of_another_size_than_the_manifest_says(store: Store, change: int, message: str):
    blob = store.add(f"{HOST}/library/llama3/latest")
    blob.write_bytes(store.content[:change] if change < 0 else store.content + bytes(change))
    with pytest.raises(ModelFileError, match=message) as caught:
        await open_model("llama3", environ=store.environ)
    assert caught.value.hint == "run: ollama pull llama3"


async def test_a_model_that_is_not_there_names_the_nearest_and_where_it_looked(store: Store, no_embedded: None):
    store.add(f"{HOST}/library/llama3/8b")
    store.add(f"{HOST}/user/mistral/latest")
    with pytest.raises(ModelNotFound, match="there is no model 'lama3:8b' on this machine") as caught:
        await open_model("lama3:8b", environ=store.environ)
    assert caught.value.exit_code == ExitCode.NO_BACKEND
    hint = caught.value.hint or ""
    assert "did you mean 'llama3:8b'?" in hint
    assert str(store.directory) in hint and "/usr/share/ollama/.ollama/models" in hint
    assert "ollama pull lama3:8b" in hint
    with pytest.raises(ModelNotFound, match="known: llama3:8b, user/mistral:latest"):
        await open_model("zzz", environ=store.environ)
    with pytest.raises(ModelNotFound, match="known: llama3:8b"):
        await open_model("not/a/name/at/all", environ=store.environ)


async def test_long_lists_of_names_are_cut(store: Store, no_embedded: None):
    for number in range(20):
        store.add(f"{HOST}/library/model{number:02}/latest")
    with pytest.raises(ModelNotFound, match=r"model11:latest, \.\.\."):
        await open_model("qqqq", environ=store.environ)


async def test_without_any_model_that_is_said(no_embedded: None):
    with pytest.raises(ModelNotFound, match="no model of Ollama's is there"):
        await open_model("llama3", environ=NOWHERE)
    with pytest.raises(ModelNotFound, match="comes with this program is fetched when"):
        await open_model("smollm2:135m", environ=NOWHERE)
    assert await list_models(NOWHERE) == []


@pytest.mark.real_model
async def test_the_embedded_model_can_be_named():
    await ModelStore().ensure(lambda message: None)
    shape = await open_model("smollm2:135m", environ=NOWHERE)
    assert len(shape.layers) == 30
    (info,) = await list_models(NOWHERE)
    assert (info.name, info.size_bytes) == ("smollm2:135m", 98_362_432)


async def test_models_are_listed_by_their_shortest_names(store: Store, no_embedded: None):
    store.add(f"{HOST}/library/llama3/8b")
    store.add(f"{HOST}/library/tuned/latest", others=("adapter",))
    store.add(f"{HOST}/user/model/latest")
    store.add("hf.co/org/repo/Q4_K_M")
    store.manifest(f"{HOST}/library/llama3/.DS_Store", "")
    store.manifest(f"{HOST}/library/broken/latest", "{")
    models = await list_models(store.environ)
    assert [(info.name, info.size_bytes) for info in models] == [
        (name, len(store.content)) for name in ("hf.co/org/repo:Q4_K_M", "llama3:8b", "user/model:latest")
    ]


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Be somebody else while the test runs, who may read nothing that is root's alone."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    is_path("warm.gguf")
    with contextlib.suppress(ModelNotFound):
        find_model("there is none", NOWHERE)  # what is imported on demand could not be imported then
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_store_that_may_not_be_read_is_named_with_what_to_do(store: Store, as_nobody: None):
    manifests = store.directory / "manifests"
    with pytest.raises(ModelNotFound) as caught:
        find_model("llama3", store.environ)
    hint = caught.value.hint or ""
    assert f"{manifests} may not be read by you" in hint
    assert "usermod -aG ollama" in hint and "chmod" in hint and "copy" in hint
    assert look_in([store.directory]).unreadable == (manifests,)


def test_a_manifest_or_blob_that_may_not_be_read(open_path: Path):
    """The names are visible, the files are not."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    store = Store(open_path / "store", write_gguf(open_path / "Tiny model.gguf"))
    blob = store.add(f"{HOST}/library/llama3/latest")
    file = store.directory / "manifests" / HOST / "library" / "llama3" / "latest"
    find_model("llama3", store.environ)
    for closed, message in ((file, "latest may not be read by you"), (blob.parent, "weights of llama3 cannot be")):
        mode = closed.stat().st_mode
        closed.chmod(0)
        os.seteuid(65534)
        try:
            with pytest.raises(ModelFileError, match=message) as caught:
                find_model("llama3", store.environ)
        finally:
            os.seteuid(0)
            closed.chmod(mode)
        assert "usermod" in (caught.value.hint or "")


def test_a_name_is_no_path_where_that_cannot_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_nobody: None):
    os.seteuid(0)
    monkeypatch.chdir(tmp_path)
    os.seteuid(65534)
    assert not is_path("user/model")


def test_a_path_that_may_not_be_looked_at(model: Path, as_nobody: None):
    with pytest.raises(ModelFileError, match="may not be looked at by you"):
        find_model(str(model), NOWHERE)


async def test_paths_of_all_kinds(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    home = {"HOME": str(tmp_path)}
    plain = tmp_path / "plain"
    model.rename(plain)
    assert (await open_model(str(plain), environ=NOWHERE)).file == plain
    assert (await open_model("./plain", environ=NOWHERE)).file == plain
    assert (await open_model("plain", environ=NOWHERE)).file == plain
    assert (await open_model("~/plain", environ=home)).file == plain
    plain.rename(model)
    assert (await open_model("Tiny model.gguf", environ=NOWHERE)).name == "Tiny model.gguf"
    assert find_model("~/Tiny model.gguf", {"USERPROFILE": str(tmp_path)}).files == (model,)


async def test_paths_that_lead_nowhere(model: Path, tmp_path: Path):
    with pytest.raises(ModelNotFound, match="there is no file") as caught:
        await open_model(str(tmp_path / "tiny-model.gguf"), environ=NOWHERE)
    assert caught.value.hint == f"did you mean {model}?"
    with pytest.raises(ModelNotFound, match=r"in .* there are: Tiny model.gguf"):
        await open_model(str(tmp_path / "qqqqqqqqqqqq.gguf"), environ=NOWHERE)
    with pytest.raises(ModelNotFound, match="there is no /nowhere either"):
        await open_model("/nowhere/x.gguf", environ=NOWHERE)
    with pytest.raises(ModelNotFound, match="cannot be read"):
        await open_model(f"{model}/x.gguf", environ=NOWHERE)
    with pytest.raises(ModelNotFound, match="write the whole path"):
        await open_model("~nobody-of-that-name/x.gguf", environ=NOWHERE)
    with pytest.raises(ModelFileError, match="is a directory") as directory:
        await open_model(f"{tmp_path}/", environ=NOWHERE)
    assert "Tiny model.gguf" in (directory.value.hint or "")
    model.unlink()
    with pytest.raises(ModelFileError, match=r"there is no \.gguf file in"):
        await open_model(str(tmp_path), environ=NOWHERE)
    with pytest.raises(ModelFileError, match="split into 2 files"):
        await open_model(str(tmp_path / "m-00002-of-00002.gguf"), environ=NOWHERE)


@pytest.mark.parametrize("name", ["", "  ", "a\0b.gguf"])
async def test_names_that_name_nothing(name: str):
    with pytest.raises(UsageError, match="names no model"):
        await open_model(name, environ=NOWHERE)
