"""The wheel, installed into an empty environment outside the checkout."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it would be published."""
    target = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (built,) = target.glob("*.whl")
    return built


def test_it_holds_the_agents_and_pipelines_and_owns_one_import_name(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"synaptic"}
    assert "synaptic/py.typed" in names
    for agent in ("planner", "researcher", "critic", "editor", "storyteller"):
        assert f"synaptic/_agents/{agent}.md" in names
    for pipeline in ("answer", "parallel", "research"):
        assert f"synaptic/pipeline/builtin/{pipeline}.yaml" in names


def test_it_works_in_an_empty_environment(wheel: Path, tmp_path: Path):
    environment = tmp_path / "env"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-compile"]  # most of it is never imported
    locked = str(ROOT / "requirements" / "run.txt")
    subprocess.run([*pip, "--require-hashes", "--requirement", locked], check=True, cwd=tmp_path)
    subprocess.run([*pip, "--no-index", f"{wheel}[local]"], check=True, cwd=tmp_path)  # the lock lacks nothing
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("COV", "PYTHON"))}

    def synaptic(*arguments: str) -> str:
        command = [environment / "bin" / "synaptic", *arguments]
        done = subprocess.run(command, check=True, cwd=tmp_path, env=variables, capture_output=True, text=True)
        return done.stdout

    document = json.loads(synaptic("--set", "backend=scripted", "--json", "why?"))

    assert document["status"] == "succeeded"
    assert {step["agent"] for step in document["steps"]} >= {"planner", "researcher", "critic", "editor"}
    assert len(synaptic("-p", "answer", "What is iron?").split()) > 5
    assert "storyteller" in synaptic("agents", "list")
    assert "research" in synaptic("pipelines", "list")
