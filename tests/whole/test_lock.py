"""The lock files give what pyproject.toml asks for, with hashes, and name no place to get it from."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
RUN = PROJECT["project"]["dependencies"] + EXTRAS["local"]
BUILD = PROJECT["dependency-groups"]["build"] + PROJECT["build-system"]["requires"]
DOCS = PROJECT["dependency-groups"]["docs"]
FUZZ = PROJECT["dependency-groups"]["fuzz"]
PYTHONS = [
    classifier.rpartition(" ")[2]
    for classifier in PROJECT["project"]["classifiers"]
    if re.search(r":: 3\.\d+$", classifier)
]


def text_of(name: str) -> str:
    return (ROOT / "requirements" / name).read_text(encoding="utf-8")


def locked(name: str, python: str) -> dict[str, str]:
    """The versions in a lock file, by package, on Linux with that Python."""
    versions: dict[str, str] = {}
    environment = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux"}
    environment["platform_machine"] = "x86_64"
    for line in re.findall(r"^[a-z].*?(?= \\$)", text_of(name), re.MULTILINE):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert requirement.name not in versions
            (only,) = requirement.specifier
            assert only.operator == "=="
            versions[requirement.name] = only.version
    return versions


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("name", "asked"),
    [("run.txt", RUN + BUILD), ("dev.txt", RUN + BUILD + EXTRAS["dev"]), ("docs.txt", DOCS), ("fuzz.txt", FUZZ)],
    ids=["run", "dev", "docs", "fuzz"],
)
def test_a_lock_file_has_every_dependency_at_a_version_in_its_range(name: str, asked: list[str], python: str):
    versions = locked(name, python)

    wrong = [
        f"{requirement}: {name} has {versions.get(requirement.name)}"
        for requirement in map(Requirement, asked)
        if not requirement.specifier.contains(versions.get(requirement.name, "0"))
    ]

    assert wrong == [], "run: make lock"


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_files_agree(python: str):
    dev = locked("dev.txt", python)

    assert locked("run.txt", python).items() <= dev.items()
    for beside in (locked("docs.txt", python), locked("fuzz.txt", python)):
        assert [name for name in beside.keys() & dev.keys() if beside[name] != dev[name]] == []


@pytest.mark.parametrize("name", ["run.txt", "dev.txt", "docs.txt", "fuzz.txt"])
def test_a_lock_file_is_versions_with_hashes_and_nothing_else(name: str):
    packages = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text_of(name), flags=re.MULTILINE).strip())

    for package in packages:
        head, *hashes = package.split(" \\\n    ")
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; [\w.=<>!' ()]+)?", head), head
        assert hashes, head
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", value) for value in hashes), head
    assert "://" not in text_of(name)
    assert "--index" not in text_of(name)
