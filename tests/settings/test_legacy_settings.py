"""The older program's files: every key known, mapped or ignored once, migrated without a change of meaning."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trust_support import trust

from synaptic.errors import ConfigError
from synaptic.settings import LoadedSettings, load_settings, migrate
from synaptic.settings.legacy import ALIASES, IGNORED, MAPPED, successor_name
from synaptic.settings.model import Settings

# What the older program saved with nothing changed; its file is written again on each change.
AUTOSAVED: dict[str, Any] = {
    "mode": None,
    "collaborative_mode": False,
    "refinement_rounds": 1,
    "agent_timeout": 300,
    "ast_voting_enabled": False,
    "quality_threshold": 0.7,
    "max_quality_retries": 2,
    "flockparser_enabled": False,
    "dashboard_verbose": True,
    "dashboard_enable_dask": True,
    "model": "llama3.2",
    "synthesis_model": None,
    "strategy": None,
    "task_distribution_enabled": True,
    "model_sharding_enabled": False,
    "rpc_backends": [],
    "redis_logging_enabled": False,
    "redis_host": "localhost",
    "redis_port": 6379,
    "redis_db": 0,
    "redis_password": "hunter2",
}
READ_ONLY = {"coordinator_url", "distributed_inference_enabled", "flockparser_url", "embedding_model", "ollama_url"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "home"
    directory.mkdir()
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.chdir(tmp_path)
    return directory


def write(home: Path, value: Any, name: str = ".synapticllamas.json") -> Path:
    path = home / name
    path.write_text(value if isinstance(value, str) else json.dumps(value, indent=1))
    return path


def load(**more: Any) -> LoadedSettings:
    return load_settings(environ={}, **more)


def problems(**more: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(**more)
    return [str(problem) for problem in caught.value.problems]


def test_every_key_of_the_older_program_is_known() -> None:
    known = MAPPED.keys() | IGNORED | ALIASES.keys() | Settings.model_fields.keys()
    assert AUTOSAVED.keys() | READ_ONLY <= known
    assert not (MAPPED.keys() | IGNORED) & Settings.model_fields.keys()


def test_its_autosaved_file_loads_with_its_meaning(home: Path) -> None:
    path = write(home, AUTOSAVED)
    loaded = load()
    assert loaded.settings == Settings(
        model="llama3.2",
        pipeline="parallel",
        pipeline_inputs={"rounds": 1, "threshold": 0.7},
        call_timeout=300,
    )
    assert loaded.origins["call_timeout"] == f"{path}:5 (agent_timeout)"
    assert loaded.origins["pipeline"] == f"{path}:3 (collaborative_mode)"
    assert loaded.origins["pipeline_inputs"] == f"{path}:4 (refinement_rounds), {path}:7 (quality_threshold)"
    assert loaded.origins["distributed_inference_enabled"] == f"{path}:16 (model_sharding_enabled)"


def test_what_has_no_use_is_named_in_one_notice_without_values_and_nulls(home: Path) -> None:
    path = write(home, AUTOSAVED)
    write(home, {"nodes": [{"url": "http://a", "name": "a", "priority": 5}]}, ".synapticllamas_nodes.json")
    alias, ignored = load().notices
    assert alias == f"{path}:16: model_sharding_enabled is the older name of distributed_inference_enabled"
    named = {key for key in AUTOSAVED if key in IGNORED and AUTOSAVED[key] is not None}
    assert all(key in ignored for key in named)
    assert "priority" in ignored
    assert "mode," not in ignored.replace("collaborative_mode,", "")
    assert "strategy" not in ignored
    assert "hunter2" not in ignored
    assert "\n" not in ignored


@pytest.mark.parametrize("pipeline", [(True, "research"), (False, "parallel")])
def test_collaborative_mode_names_the_pipeline(home: Path, pipeline: tuple[bool, str]) -> None:
    write(home, {"collaborative_mode": pipeline[0], "synthesis_model": "big:70b"})
    loaded = load()
    assert loaded.settings.pipeline == pipeline[1]
    assert loaded.settings.agent_models == {"editor": "big:70b"}


def test_a_new_key_wins_over_an_old_one_beside_it(home: Path) -> None:
    path = write(
        home,
        {
            "call_timeout": 5,
            "agent_timeout": "not even a number",
            "agent_models": {"critic": "c", "editor": "new"},
            "synthesis_model": "old",
            "refinement_rounds": 4,
            "pipeline_inputs": {"threshold": 0.1},
        },
    )
    loaded = load()
    assert loaded.settings.call_timeout == 5
    assert loaded.settings.agent_models == {"critic": "c", "editor": "new"}
    assert loaded.settings.pipeline_inputs == {"rounds": 4, "threshold": 0.1}
    assert loaded.origins["agent_models"] == f"{path}:4"
    assert loaded.origins["pipeline_inputs"] == f"{path}:9 (refinement_rounds), {path}:10 (threshold)"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"agent_timeout": "300"}, 'agent_timeout (now call_timeout) must be a number, not "300"'),
        ({"agent_timeout": 0}, "agent_timeout (now call_timeout) must be greater than 0, not 0"),
        ({"agent_timeout": True}, "agent_timeout (now call_timeout) must be a number, not true"),
        ({"refinement_rounds": -1}, "(now pipeline_inputs.rounds) must be a whole number, 0 or more, not -1"),
        ({"refinement_rounds": 1.5}, "must be a whole number, 0 or more, not 1.5"),
        ({"quality_threshold": []}, "quality_threshold (now pipeline_inputs.threshold) must be a number, not a list"),
        ({"collaborative_mode": "yes"}, 'collaborative_mode (now pipeline) must be true or false, not "yes"'),
        ({"synthesis_model": ""}, "synthesis_model (now agent_models.editor) must not be empty"),
        ({"ollama_url": "localhost:1"}, 'ollama_url (now nodes) has no scheme; write "http://localhost:1"'),
        (
            {"model_sharding_enabled": "on"},
            'must be true or false, not "on"; write "distributed_inference_enabled": true',
        ),
    ],
)
def test_a_wrong_value_of_an_old_key_names_the_old_key_and_its_line(home: Path, content: Any, said: str) -> None:
    path = write(home, content)
    (problem,) = problems()
    assert problem.startswith(f"{path}:2:2: ")
    assert said in problem


def test_an_alias_that_contradicts_its_new_name_is_an_error(home: Path) -> None:
    path = write(home, {"distributed_inference_enabled": True, "model_sharding_enabled": False})
    assert problems() == [
        (
            f"{path}:3:2: model_sharding_enabled is the older name of distributed_inference_enabled, "
            "and the two contradict each other here; remove model_sharding_enabled"
        )
    ]


def test_an_alias_that_agrees_is_only_noticed(home: Path) -> None:
    write(home, {"distributed_inference_enabled": True, "model_sharding_enabled": True})
    loaded = load()
    assert loaded.settings.distributed_inference_enabled
    assert len(loaded.notices) == 1


def test_the_alias_works_on_the_command_line_and_in_the_environment(home: Path) -> None:
    assert home.is_dir()
    by_argument = load(overrides=["model_sharding_enabled=yes"])
    by_variable = load_settings(environ={"SYNAPTIC_MODEL_SHARDING_ENABLED": "1"})
    assert by_argument.settings.distributed_inference_enabled
    assert by_argument.origins["distributed_inference_enabled"] == "--set (model_sharding_enabled)"
    assert by_variable.settings.distributed_inference_enabled
    assert by_variable.origins["distributed_inference_enabled"] == "SYNAPTIC_MODEL_SHARDING_ENABLED"


def test_an_old_key_elsewhere_is_an_error_that_names_the_new_one(home: Path) -> None:
    assert home.is_dir()
    assert problems(overrides=["agent_timeout=5", "mode=x"])[0] == (
        "--set: unknown setting 'agent_timeout'; write call_timeout, its name today"
    )
    with pytest.raises(ConfigError, match="write SYNAPTIC_CALL_TIMEOUT, its name today"):
        load_settings(environ={"SYNAPTIC_AGENT_TIMEOUT": "5"})
    assert successor_name("strategy") is None


def test_nodes_of_the_older_nodes_file(home: Path) -> None:
    path = write(
        home, {"nodes": [{"url": "http://A:11434/", "name": "a", "priority": 1}]}, ".synapticllamas_nodes.json"
    )
    loaded = load()
    assert [(node.url, node.name) for node in loaded.settings.nodes] == [("http://a:11434", "a")]
    assert loaded.origins["nodes"] == f"{path}:2"


@pytest.mark.parametrize("content", [{"nodes": []}, {}, {"nodes": [{"url": "http://other", "priority": None}]}])
def test_the_nodes_file_gives_no_notice_where_nothing_is_lost(home: Path, content: Any) -> None:
    write(home, content, ".synapticllamas_nodes.json")
    assert load().notices == ()


def test_the_nodes_file_is_not_read_where_nodes_are_given_or_another_file_is_named(home: Path, tmp_path: Path) -> None:
    write(home, "{broken", ".synapticllamas_nodes.json")
    other = write(tmp_path, {}, "other.json")
    assert load(config_path=other).settings.nodes == []
    assert load(overrides=["nodes=http://b"]).settings.nodes[0].url == "http://b:11434"
    write(home, {"nodes": []})
    assert load().settings.nodes == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{broken", ":1:2: broken JSON: a key without quotes"),
        ({"nodes": [{"url": "x:1"}]}, ':4:4: nodes[0].url has no scheme; write "http://x:1"'),
        ({"nodes": {"a": 1}}, ":2:2: nodes must be a list, not an object"),
        ({"nodes": [3]}, ":3:3: nodes[0] must be an object, not 3"),
        ({"nods": []}, ":2:2: unknown key 'nods' in the nodes file"),
    ],
)
def test_a_wrong_nodes_file_says_where(home: Path, content: Any, said: str) -> None:
    path = write(home, content, ".synapticllamas_nodes.json")
    (problem,) = problems()
    assert problem.startswith(f"{path}{said}")


def test_ollama_url_is_a_node_only_where_nothing_else_names_one(home: Path, tmp_path: Path) -> None:
    path = write(home, {"ollama_url": "http://old"})
    loaded = load()
    assert [node.url for node in loaded.settings.nodes] == ["http://old:11434"]
    assert loaded.origins["nodes"] == f"{path}:2 (ollama_url)"
    write(home, {"nodes": ["http://kept"]}, ".synapticllamas_nodes.json")
    assert [node.url for node in load().settings.nodes] == ["http://kept:11434"]
    write(tmp_path, {"nodes": ["http://project"]}, "synapticllamas.json")
    trust()
    assert [node.url for node in load().settings.nodes] == ["http://project:11434"]


def test_migrate_writes_the_new_form_beside_a_backup(home: Path) -> None:
    path = write(home, {**AUTOSAVED, "synthesis_model": "big", "ollama_url": "http://o"})
    nodes = write(home, {"nodes": [{"url": "http://a", "name": None, "priority": 2}]}, ".synapticllamas_nodes.json")
    before = path.read_bytes()
    report = migrate(path)
    assert report.changed
    assert report.backup == home / ".synapticllamas.json.bak"
    assert report.backup.read_bytes() == before
    assert report.nodes_from == nodes
    assert {"ollama_url", "priority of nodes", "redis_password"} <= set(report.dropped)
    assert json.loads(path.read_text()) == {
        "pipeline": "parallel",
        "pipeline_inputs": {"rounds": 1, "threshold": 0.7},
        "call_timeout": 300,
        "model": "llama3.2",
        "agent_models": {"editor": "big"},
        "task_distribution_enabled": True,
        "distributed_inference_enabled": False,
        "rpc_backends": [],
        "nodes": [{"url": "http://a", "name": None}],
    }
    assert load().notices == ()
    said = "\n".join(report.lines())
    assert "agent_timeout -> call_timeout" in said
    assert "hunter2" not in said


def test_migrate_a_second_time_writes_nothing(home: Path) -> None:
    path = write(home, AUTOSAVED)
    migrate(path)
    first = (path.read_bytes(), path.stat().st_mtime_ns)
    report = migrate(path)
    assert not report.changed
    assert report.lines() == (f"{path}: nothing to migrate",)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == first
    assert sorted(entry.name for entry in home.iterdir()) == [".synapticllamas.json", ".synapticllamas.json.bak"]


def test_migrate_with_a_nodes_file_alone_writes_a_settings_file(home: Path) -> None:
    path = home / ".synapticllamas.json"
    assert not migrate(path).changed
    write(home, {"nodes": [{"url": "http://a"}]}, ".synapticllamas_nodes.json")
    report = migrate(path)
    assert report.backup is None
    assert json.loads(path.read_text()) == {"nodes": [{"url": "http://a"}]}


def test_migrate_another_file_leaves_the_nodes_at_home_alone(home: Path, tmp_path: Path) -> None:
    write(home, {"nodes": [{"url": "http://a"}]}, ".synapticllamas_nodes.json")
    other = write(tmp_path, {"agent_timeout": 5, "ollama_url": "http://o", "distributed_inference_enabled": True})
    assert migrate(other).changed
    assert json.loads(other.read_text()) == {
        "call_timeout": 5,
        "nodes": [{"url": "http://o"}],
        "distributed_inference_enabled": True,
    }


def test_migrate_refuses_what_is_wrong_and_writes_nothing(home: Path, tmp_path: Path) -> None:
    path = write(home, {"agent_timeout": -1, "modle": "x"})
    before = path.read_bytes()
    with pytest.raises(ConfigError) as caught:
        migrate(path)
    assert len(caught.value.problems) == 2
    assert path.read_bytes() == before
    with pytest.raises(ConfigError, match="there is no such file"):
        migrate(tmp_path / "none.json")
    write(home, {})
    write(home, {"nodes": [{"url": "a"}]}, ".synapticllamas_nodes.json")
    with pytest.raises(ConfigError, match="has no scheme"):
        migrate(path)
    assert [entry.name for entry in home.iterdir() if "bak" in entry.name] == []


OLD_FILES = st.fixed_dictionaries(
    {},
    optional={
        "collaborative_mode": st.none() | st.booleans(),
        "refinement_rounds": st.integers(0, 5),
        "agent_timeout": st.none() | st.integers(1, 900),
        "quality_threshold": st.floats(0, 1),
        "model": st.none() | st.sampled_from(["a", "b:7b"]),
        "synthesis_model": st.none() | st.sampled_from(["big"]),
        "model_sharding_enabled": st.booleans(),
        "task_distribution_enabled": st.booleans(),
        "strategy": st.none() | st.just("gpu_routing"),
        "redis_port": st.integers(),
        "ollama_url": st.none() | st.just("http://old/"),
        "rpc_backends": st.just([{"host": "h", "port": 1}]),
        "coordinator_url": st.none() | st.just("http://c:1"),
        "call_timeout": st.integers(1, 9),
        "pipeline": st.just("answer"),
        "pipeline_inputs": st.dictionaries(st.sampled_from(["rounds", "tone"]), st.integers()),
        "agent_models": st.dictionaries(st.sampled_from(["editor", "critic"]), st.just("m")),
        "nodes": st.just(["http://n"]),
    },
)
OLD_NODES = st.none() | st.lists(st.sampled_from(["http://x", "http://y"]), unique=True, max_size=2)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(OLD_FILES, OLD_NODES, st.randoms())
def test_migration_changes_no_effective_setting(old: dict[str, Any], nodes: list[str] | None, random: Any) -> None:
    keys = list(old)
    random.shuffle(keys)
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        home = Path(directory)
        patch.setenv("HOME", directory)
        path = write(home, {key: old[key] for key in keys})
        if nodes is not None:
            content = {"nodes": [{"url": url, "priority": 1} for url in nodes]}
            write(home, content, ".synapticllamas_nodes.json")
        before = load(cwd=home).settings
        report = migrate(path)
        after = load(cwd=home)
        assert after.settings == before
        assert after.notices == ()
        assert report.changed == os.path.exists(f"{path}.bak")  # noqa: PTH110 - the name is built as text
        assert not migrate(path).changed
