"""The record of trusted folders, and what settings of a folder may choose without it."""

import copy
import json
import os
from pathlib import Path

import pytest
from trust_support import trust

from synaptic import paths
from synaptic.errors import UsageError
from synaptic.settings import (
    FolderText,
    Settings,
    forget_folder,
    is_trusted,
    load_settings,
    set_value,
    trust_folder,
    trusted_folders,
    trusting,
    unset_value,
)
from synaptic.settings.untrusted import FOLDER_MAY_CHOOSE

NEEDS_TRUST = {
    "aliases",
    "backend",
    "task_distribution_enabled",
    "distributed_inference_enabled",
    "nodes",
    "hedge",
    "rpc_backends",
    "public_workers",
    "coordinator_url",
    "local_workers",
    "local_worker_threads",
    "local_worker_memory_gib",
    "distributed_context",
    "distributed_parallel",
    "drafts",
    "model_replicas",
    "prewarm",
    "coordinator_idle",
    "worker_return_wait",
    "worker_recovery_wait",
    "ray_address",
    "ray_worker_memory_gib",
    "tensor_cache_gib",
    "keep_alive",
    "journal",
    "journal_max_bytes",
    "telemetry",
    "telemetry_endpoint",
    "telemetry_content",
    "markdown",
    "theme",
    "editing",
    "embedded_model",
    "embedded_parallel",
    "embedded_threads",
    "embedded_context",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, **settings: object) -> Path:
    path = folder / "synapticllamas.json"
    path.write_text(json.dumps(settings, indent=1))
    return path


def test_every_setting_is_on_one_side() -> None:
    """A new one is left out until somebody has thought about it: then it is named here, or in the table."""
    assert set(Settings.model_fields) == FOLDER_MAY_CHOOSE | NEEDS_TRUST
    assert not FOLDER_MAY_CHOOSE & NEEDS_TRUST


def test_the_reference_lists_what_a_folder_may_choose() -> None:
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "trust.md").read_text(encoding="utf-8")

    assert [name for name in FOLDER_MAY_CHOOSE if f"`{name}`" not in text] == []


def test_what_is_trusted_is_a_file_of_a_folder_with_its_content(folder: Path) -> None:
    (folder / "link").symlink_to(folder)
    assert not is_trusted(folder, "a", "text")

    trust_folder(folder, {"a": "text"})

    assert is_trusted(folder / "link", "a", "text")
    assert is_trusted(Path(), "a", "text")
    assert not is_trusted(folder, "a", "text\n")
    assert not is_trusted(folder, "b", "text")
    assert not is_trusted(folder.parent, "a", "text")
    assert forget_folder(folder)
    assert not forget_folder(folder)
    assert not is_trusted(folder, "a", "text")


def test_the_record_is_the_persons_alone(folder: Path) -> None:
    trust_folder(folder, {"a": "text"})

    assert paths.trusted_folders_file().stat().st_mode & 0o777 == 0o600
    assert [*trusted_folders()] == [os.path.realpath(folder)]


@pytest.mark.parametrize("content", ["", "[]", '{"/x": 1}', "\x00", '{"a": ' * 100_000])
def test_a_damaged_record_trusts_nothing_and_is_not_replaced(folder: Path, content: str) -> None:
    trust_folder(folder, {"a": "text"})
    paths.trusted_folders_file().write_text(content)

    assert not is_trusted(folder, "a", "text")
    for change in (lambda: trust_folder(folder, {}), lambda: forget_folder(folder), trusted_folders):
        with pytest.raises(UsageError, match="does not say which folders are trusted") as caught:
            change()
        assert caught.value.hint == f"remove {paths.trusted_folders_file()}"
    assert paths.trusted_folders_file().read_text() == content


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (".synapticllamas.json", True),
        ("synapticllama.json", True),
        ("Synaptic-Lamas.JSON", True),
        ("synapticllamas.json.txt", True),
        ("synaptic.json", True),
        ("synapticllamas.example.json", False),
        ("synapticllamas.json.bak", False),
        ("synaptic.yaml", False),
        ("package.json", False),
    ],
)
def test_a_file_that_is_nearly_called_like_settings_is_said_to_be_none(folder: Path, name: str, *, told: bool) -> None:
    (folder / name).write_text('{"model": "other"}')
    home = Path.home() / ".synapticllamas.json"
    home.write_text("{}")
    said = f"./{name} is not read: settings of a folder are called ./synapticllamas.json" if told else ""
    assert load_settings().left_out == said
    assert load_settings(config_path=home).left_out == ""

    write(folder, retries=1)
    assert load_settings().left_out == ""


def test_settings_at_home_without_the_dot_are_said_to_be_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path.home(), retries=1)
    told = "~/synapticllamas.json is not read: your settings are called ~/.synapticllamas.json"
    assert load_settings().left_out == told

    monkeypatch.chdir(Path.home())  # where it is that of the folder
    assert (load_settings().left_out, load_settings().settings.retries) == ("", 1)
    monkeypatch.chdir(folder)
    (Path.home() / ".synapticllamas.json").write_text("{}")
    assert load_settings().left_out == ""


def test_a_folder_that_changes_is_asked_about_again(folder: Path) -> None:
    write(folder, nodes=["http://a"])
    trust()
    assert load_settings().left_out == ""

    write(folder, nodes=["http://b"])

    loaded = load_settings()
    assert loaded.settings.nodes == []
    assert loaded.left_out == (
        "this folder has changed since it was trusted; left out: nodes (./synapticllamas.json:2); "
        "to see and allow it: synaptic trust"
    )


def test_a_change_by_this_program_leaves_a_trusted_file_trusted(folder: Path) -> None:
    path = write(folder, nodes=["http://a"])
    set_value(path, "retries", "1")
    assert "nodes" in load_settings().left_out
    trust()

    set_value(path, "nodes", "http://b")
    unset_value(path, "retries")

    assert load_settings().left_out == ""
    assert [node.url for node in load_settings().settings.nodes] == ["http://b:11434"]


def test_what_somebody_else_wrote_is_not_trusted_by_a_change_of_this_program(folder: Path) -> None:
    path = write(folder, nodes=["http://a"])
    trust()
    write(folder, nodes=["http://b"])

    set_value(path, "retries", "1")

    assert load_settings().settings.nodes == []


def test_trust_for_a_call_ends_with_it(folder: Path) -> None:
    write(folder, nodes=["http://a"])
    with trusting():
        assert load_settings().settings.nodes
    assert not load_settings().settings.nodes
    assert load_settings(environ={"SYNAPTIC_TRUST_FOLDER": "on"}).settings.nodes
    assert not load_settings(environ={"SYNAPTIC_TRUST_FOLDER": "0"}).settings.nodes


def test_a_link_to_the_persons_own_file_is_read_once_as_that(folder: Path, own_home: Path) -> None:
    own = own_home / ".synapticllamas.json"
    own.write_text(json.dumps({"nodes": ["http://a"], "pipeline": "mine.yaml"}))
    (folder / "synapticllamas.json").symlink_to(own)

    loaded = load_settings()

    assert loaded.left_out == ""
    assert loaded.settings.pipeline == str(own_home / "mine.yaml")
    assert loaded.origins["nodes"] == f"{own}:1"


def test_many_settings_are_not_all_named(folder: Path) -> None:
    write(
        folder,
        **dict.fromkeys(("backend", "coordinator_url")),
        pipeline_inputs=dict.fromkeys("abcdefghi", "/"),
    )

    line = load_settings().left_out

    assert "pipeline_inputs.f (./synapticllamas.json:4), 3 more; to see" in line


@pytest.mark.parametrize(
    ("written", "inside"),
    [
        ("notes.txt", True),
        ("a/../notes.txt", True),
        ("~30 words, please", True),
        ("/", False),
        ("~", False),
        ("..", False),
        ("a/../../x", False),
        ("link/x", False),
        ("dry , /etc", False),
        ("\x00/etc", True),
        ("x" * 5000, True),
        ("", True),
    ],
)
def test_a_text_is_left_out_where_it_is_a_path_that_leads_out(folder: Path, written: str, *, inside: bool) -> None:
    (folder / "link").symlink_to("/")
    write(folder, model="m", pipeline_inputs={"deep": [{"x": written}]})

    assert ("pipeline_inputs" not in load_settings().left_out) == inside


def test_a_text_of_a_folder_stays_one_when_it_is_copied(folder: Path) -> None:
    write(folder, pipeline_inputs={"f": ["a.txt", {"b": "c"}], "n": 3})

    values = copy.deepcopy(load_settings().settings.pipeline_inputs)

    assert values == {"f": ["a.txt", {"b": "c"}], "n": 3}
    text = values["f"][0]
    assert isinstance(text, FolderText)
    assert text.folder.resolve() == folder.resolve()
    assert isinstance(values["f"][1]["b"], FolderText)
