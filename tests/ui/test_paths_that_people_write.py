"""A path is treated alike wherever a flag takes one: ``~`` is the home, and one that is not there is a plain error."""

from pathlib import Path

import pytest
from cli_support import ECHO, SCRIPTED, run_here

PLACES = [
    ("run", "-p", "{}/x.yaml", *SCRIPTED, "hello"),
    ("pipelines", "validate", "{}/x.yaml"),
    ("pipelines", "graph", "research", "-o", "{}/x.svg"),
    ("config", "show", "--config", "{}/x.json"),
    ("--tools", "{}/x.py", *ECHO, "hello"),
    ("engine", "install", "--source", "{}/x.tar.gz"),
    ("engine", "use", "{}/x"),
    ("--set", "embedded_model={}/x.gguf", "--set", "backend=embedded", "hello"),
    ("distributed", "start", "{}/x.gguf", "--foreground"),
]


@pytest.mark.parametrize("words", PLACES, ids=" ".join)
@pytest.mark.parametrize("folder", ["~/nowhere", "~nobody-of-that-name"])
def test_a_path_that_is_not_there_is_named_and_no_bug(words: tuple[str, ...], folder: str):
    outcome = run_here(*(word.format(folder) for word in words))

    assert outcome.code in {2, 3}
    assert "this is a bug" not in outcome.err


def test_a_pipeline_is_found_at_home(own_home: Path):
    text = run_here("pipelines", "show", "research").out
    (own_home / "mine.yaml").write_text(text)

    assert run_here("pipelines", "validate", "~/mine.yaml").code == 0
    assert run_here("pipelines", "graph", "~/mine.yaml", "--format", "svg", "-o", "~/mine.svg").code == 0
    assert (own_home / "mine.svg").is_file()
