"""Every example is run, as a reader of the documentation would run it."""

import subprocess
import sys
from pathlib import Path

import pytest

from synaptic import Pipeline, Session, Settings
from synaptic.backends.embedded import EmbeddedBackend

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(600)]


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_program_runs(script: Path, tmp_path: Path):
    done = subprocess.run([sys.executable, script], check=False, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) >= 10


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
async def test_every_pipeline_answers(file: Path, real_backend: EmbeddedBackend, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(EXAMPLES)
    async with Session(Settings(), backend=real_backend) as session:
        result = await session.run("the sea", pipeline=Pipeline.load(file))

    assert result.status == "succeeded", result.error
    assert result.answer
