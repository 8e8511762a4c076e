"""Write the software bill of materials, as CycloneDX JSON: python .ci/sbom.py dist/sbom.cdx.json.

It says what the lock files, the pinned model and the pinned llama.cpp say, and asks nobody. The same files give the
same bytes: the serial number is made of the content, and the time is that of ``SOURCE_DATE_EPOCH``, or is left out.
"""

import os
import re
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid5

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement

from synaptic.backends.distributed.engine.source import LLAMA_CPP
from synaptic.models.download import SMOLLM2

ROOT = Path(__file__).parents[1]
SERIALS = UUID("7c0c3b52-6f0e-5d0b-9d4c-0f6f1d1c8f13")
"""Where serial numbers are made from content; any fixed number does."""


def locked(name: str) -> Iterator[tuple[Requirement, list[str]]]:
    """Yield what a lock file holds: package, version and condition, and the SHA-256 of each of its files."""
    text = re.sub(r"^#.*\n", "", (ROOT / "requirements" / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    for package in re.split(r"\n(?=\S)", text.strip()):
        head, *hashes = package.split(" \\\n")
        yield Requirement(head), [value.rpartition(":")[2] for value in hashes]


def files(address: str, digests: list[str]) -> list[ExternalReference]:
    """Return where a component's files come from, with the digest of each (a package has one for every platform)."""
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in digests]
    return [ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(address), hashes=hashes)]


def package(requirement: Requirement, digests: list[str], lock: str) -> Component:
    """Return a Python package; those that only build, test or document the program are no part of what runs."""
    (pin,) = requirement.specifier
    purl = PackageURL("pypi", None, requirement.name, pin.version)
    said = {"synaptic:lock": f"requirements/{lock}", "synaptic:only-if": str(requirement.marker or "")}
    return Component(
        type=ComponentType.LIBRARY,
        name=requirement.name,
        version=pin.version,
        purl=purl,
        bom_ref=str(purl),
        scope=ComponentScope.REQUIRED if lock == "run.txt" else ComponentScope.EXCLUDED,
        external_references=files(str(purl), digests),
        properties=[Property(name=name, value=value) for name, value in said.items() if value],
    )


def packages() -> Iterator[Component]:
    """Yield every package of every lock file once, named by the first file that has it: what runs comes first."""
    seen: set[str] = set()
    rest = sorted(
        path.name for path in (ROOT / "requirements").glob("*.txt") if path.name not in {"run.txt", "dev.txt"}
    )
    for lock in ("run.txt", "dev.txt", *rest):
        for requirement, digests in locked(lock):
            component = package(requirement, digests, lock)
            if component.bom_ref.value not in seen:
                seen.add(component.bom_ref.value)
                yield component


def llama_cpp() -> Component:
    """Return the engine of distributed inference, which is built from a source distribution."""
    source = PackageURL("pypi", None, LLAMA_CPP.name, LLAMA_CPP.version)
    return Component(
        type=ComponentType.APPLICATION,
        name="llama.cpp",
        version=LLAMA_CPP.commit,
        bom_ref="llama.cpp",
        purl=PackageURL("github", "ggml-org", "llama.cpp", LLAMA_CPP.commit),
        scope=ComponentScope.OPTIONAL,
        description=f"built by `synaptic engine install` from {LLAMA_CPP.tree} of {LLAMA_CPP.file_name}",
        external_references=files(str(source), [LLAMA_CPP.sha256]),
    )


def model() -> Component:
    """Return the embedded model."""
    name, _, version = SMOLLM2.requirement.partition("==")
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=SMOLLM2.title,
        version=version,
        bom_ref=SMOLLM2.title,
        scope=ComponentScope.OPTIONAL,
        description=f"{SMOLLM2.member} of {SMOLLM2.requirement}, fetched when the first question needs it",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=SMOLLM2.sha256)],
        external_references=[
            ExternalReference(
                type=ExternalReferenceType.DISTRIBUTION, url=XsUri(str(PackageURL("pypi", None, name, version)))
            )
        ],
    )


def bill() -> Bom:
    """Return the whole bill, with neither a time nor a number of its own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    purl = PackageURL("pypi", None, project["name"], project["version"])
    program = Component(
        type=ComponentType.APPLICATION,
        name=project["name"],
        version=project["version"],
        description=project["description"],
        purl=purl,
        bom_ref=str(purl),
    )
    bom = Bom(components=[*packages(), llama_cpp(), model()])
    bom.metadata.component = program
    # Which of them needs which is not in the lock files: all are named as the program's.
    bom.register_dependency(program, [each for each in bom.components if each.scope is not ComponentScope.EXCLUDED])
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    bom.metadata.timestamp = datetime.fromtimestamp(int(epoch), UTC) if epoch else None
    bom.serial_number = SERIALS
    return bom


def main(target: Path) -> None:
    """Write the bill to a file."""
    bom = bill()
    bom.serial_number = uuid5(SERIALS, JsonV1Dot6(bom).output_as_string())
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(JsonV1Dot6(bom).output_as_string(indent=2) + "\n", encoding="utf-8")
    needed = sum(component.scope is not ComponentScope.EXCLUDED for component in bom.components)
    print(f"{target}: {len(bom.components)} components, {needed} of them in what runs")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
