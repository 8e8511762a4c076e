"""The bill of materials: valid CycloneDX, complete, the same bytes each time, and it names no place to fetch from."""

import json
import re
import runpy
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from referencing import Registry, Resource

from synaptic.backends.distributed.engine.source import LLAMA_CPP
from synaptic.models.download import SMOLLM2

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.name for path in (ROOT / "requirements").glob("*.txt"))


@pytest.fixture(scope="module")
def write():
    return runpy.run_path(str(ROOT / ".ci" / "sbom.py"))["main"]


@pytest.fixture(scope="module")
def bill(write, tmp_path_factory: pytest.TempPathFactory) -> dict:
    target = tmp_path_factory.mktemp("sbom") / "dist" / "sbom.cdx.json"
    write(target)
    return json.loads(target.read_text(encoding="utf-8"))


def component(bill: dict, name: str) -> dict:
    (found,) = [each for each in bill["components"] if each["name"] == name]
    return found


def digests(component: dict) -> set[str]:
    hashes = component.get("hashes", []) + component["externalReferences"][0].get("hashes", [])
    return {each["content"] for each in hashes if each["alg"] == "SHA-256"}


def test_it_is_what_the_schema_of_cyclonedx_asks_for(bill: dict):
    folder = files("cyclonedx.schema") / "_res"
    schemas = {
        name: json.loads((folder / f"{name}.SNAPSHOT.schema.json").read_text(encoding="utf-8"))
        for name in ("bom-1.6", "spdx", "jsf-0.82")
    }
    registry = Registry().with_resources((each["$id"], Resource.from_contents(each)) for each in schemas.values())

    jsonschema.Draft7Validator(schemas["bom-1.6"], registry=registry).validate(bill)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_package_of_every_lock_file_is_in_it_with_all_its_hashes(bill: dict, name: str):
    by_name = {(each["name"], each["version"]): each for each in bill["components"]}
    packages = re.findall(
        r"^([a-z0-9-]+)==([\w.]+)(.*(?:\n    .*)+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE
    )

    assert len(packages) > 5
    for package, version, rest in packages:
        entry = by_name[package, version]
        assert digests(entry) == set(re.findall(r"sha256:([0-9a-f]{64})", rest))
        assert entry["scope"] == "required" or name != "run.txt"


def test_what_only_tests_is_told_from_what_runs(bill: dict):
    assert [component(bill, name)["scope"] for name in ("click", "pytest", "zensical")] == [
        "required",
        "excluded",
        "excluded",
    ]


def test_the_engine_and_the_model_are_in_it_as_they_are_pinned(bill: dict):
    engine, model = component(bill, "llama.cpp"), component(bill, SMOLLM2.title)

    assert (engine["version"], digests(engine)) == (LLAMA_CPP.commit, {LLAMA_CPP.sha256})
    assert (model["type"], digests(model)) == ("machine-learning-model", {SMOLLM2.sha256})


def test_it_is_the_same_each_time_and_has_a_time_if_one_is_given(
    bill: dict, write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    write(tmp_path / "dated.json")
    dated = json.loads((tmp_path / "dated.json").read_text(encoding="utf-8"))

    assert again == bill
    assert "timestamp" not in bill["metadata"]
    assert dated["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"


def test_no_host_of_a_registry_is_named(bill: dict):
    assert set(re.findall(r"\w+://[^\"]+", json.dumps(bill))) == {bill["$schema"]}
