"""Settings: precedence and origins, every mistake at its place, one value changed and the rest kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from settings_reference import all_rows

from synaptic.errors import ConfigError, ExitCode
from synaptic.settings import (
    LoadedSettings,
    NodeSettings,
    RpcBackendSettings,
    Settings,
    describe,
    load_settings,
    set_value,
    settings_path,
    unset_value,
)
from synaptic.settings.endpoints import normal_host, normal_url
from synaptic.settings.legacy import ALIASES, IGNORED, MAPPED
from synaptic.settings.sources import OTHER_VARIABLES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "home"
    directory.mkdir()
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.chdir(tmp_path)
    return directory


def write(directory: Path, value: Any, name: str = ".synapticllamas.json") -> Path:
    path = directory / name
    path.write_text(value if isinstance(value, str) else json.dumps(value, indent=1))
    return path


def load(**more: Any) -> LoadedSettings:
    return load_settings(**{"environ": {}, **more})


def problems(**more: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(**more)
    assert caught.value.exit_code is ExitCode.USAGE
    assert str(caught.value) == "\n".join(str(problem) for problem in caught.value.problems)
    return [str(problem) for problem in caught.value.problems]


def attempt(**arguments: Any) -> LoadedSettings | ConfigError:
    """Return what loading gives; any other exception ends the test."""
    try:
        return load_settings(**arguments)
    except ConfigError as exc:
        return exc


def test_without_any_source_everything_is_default(home: Path) -> None:
    assert list(home.iterdir()) == []
    loaded = load()
    assert loaded.settings == Settings()
    assert set(loaded.origins) == set(Settings.model_fields)
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.notices == ()


def test_the_process_environment_is_read_unless_another_is_given(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNAPTIC_MODEL", "from-environment")
    assert home.is_dir()
    assert load_settings().settings.model == "from-environment"
    assert load_settings(environ={}).settings.model is None


def test_each_source_wins_over_the_one_below_and_origins_say_so(home: Path, tmp_path: Path) -> None:
    user = write(home, {"retries": 1, "model": "user", "pipeline": "answer", "num_ctx": 512, "idle_timeout": 1})
    write(
        tmp_path,
        {"model": "project", "pipeline": "parallel", "num_ctx": 1024, "idle_timeout": 2},
        "synapticllamas.json",
    )
    loaded = load(
        environ={"SYNAPTIC_PIPELINE": "environment", "SYNAPTIC_NUM_CTX": "2048", "SYNAPTIC_IDLE_TIMEOUT": "3"},
        overrides=["num_ctx=4096", "idle_timeout=4", "idle_timeout=5"],
        flags={"idle_timeout": ("--idle", 6.0), "model": ("-m", None)},
    )
    values = loaded.settings.model_dump()
    seen = {name: (values[name], loaded.origins[name]) for name in ("retries", "model", "pipeline", "num_ctx")}
    assert seen == {
        "retries": (1, f"{user}:2"),
        "model": ("project", "./synapticllamas.json:2"),
        "pipeline": ("environment", "SYNAPTIC_PIPELINE"),
        "num_ctx": (4096, "--set"),
    }
    assert (values["idle_timeout"], loaded.origins["idle_timeout"]) == (6.0, "--idle")


CHOICES: dict[str, list[Any]] = {
    "model": ["a", "b", None],
    "retries": [0, 1, 2, 3],
    "call_timeout": [1.5, 30, None],
    "task_distribution_enabled": [True, False],
    "think": [True, False, None],
    "nodes": [[], ["http://a"], ["http://b", "http://c"]],
    "embedded_context": [256, 9000],
}
ASSIGNMENT = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in CHOICES.items()})


def as_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(value)
    return value if isinstance(value, str) else json.dumps(value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(user=ASSIGNMENT, project=ASSIGNMENT, environment=ASSIGNMENT, arguments=ASSIGNMENT, flags=ASSIGNMENT)
def test_the_highest_source_wins_for_every_setting(
    user: dict[str, Any],
    project: dict[str, Any],
    environment: dict[str, Any],
    arguments: dict[str, Any],
    flags: dict[str, Any],
) -> None:
    flags = {name: value for name, value in flags.items() if value is not None}
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", directory)
        write(Path(directory), user)
        write(Path(directory), project, "synapticllamas.json")
        loaded = load_settings(
            cwd=Path(directory),
            environ={
                "SYNAPTIC_TRUST_FOLDER": "1",
                **{f"SYNAPTIC_{name.upper()}": as_text(value) for name, value in environment.items()},
            },
            overrides=[f"{name}={as_text(value)}" for name, value in arguments.items()],
            flags={name: (f"--{name}", value) for name, value in flags.items()},
        )
    sources = [
        (flags, "--{name}"),
        (arguments, "--set"),
        (environment, "SYNAPTIC_{upper}"),
        (project, "./synapticllamas.json:"),
        (user, f"{directory}/.synapticllamas.json:"),
        (Settings().model_dump(), "default"),
    ]
    for name in Settings.model_fields:
        values, origin = next((values, origin) for values, origin in sources if name in values)
        assert getattr(loaded.settings, name) == getattr(Settings(**{name: values[name]}), name)
        assert loaded.origins[name].startswith(origin.format(name=name, upper=name.upper()))


def test_tables_are_added_to_entry_by_entry(home: Path, tmp_path: Path) -> None:
    user = write(home, {"agent_models": {"editor": "u", "critic": "u"}, "pipeline_inputs": {"rounds": 1}})
    write(tmp_path, {"agent_models": {"critic": "p"}}, "synapticllamas.json")
    loaded = load(overrides=["agent_models.planner=s=1", "pipeline_inputs.tone=dry", 'pipeline_inputs.deep={"a": [1]}'])
    assert loaded.settings.agent_models == {"editor": "u", "critic": "p", "planner": "s=1"}
    assert loaded.settings.pipeline_inputs == {"rounds": 1, "tone": "dry", "deep": {"a": [1]}}
    assert loaded.origins["agent_models"] == f"{user}:2 (editor), ./synapticllamas.json:2 (critic), --set (planner)"


def test_a_whole_table_in_the_environment_replaces_what_is_below(home: Path) -> None:
    write(home, {"agent_models": {"editor": "u"}})
    loaded = load(environ={"SYNAPTIC_AGENT_MODELS": '{"critic": "e"}'})
    assert loaded.settings.agent_models == {"critic": "e"}
    assert loaded.origins["agent_models"] == "SYNAPTIC_AGENT_MODELS"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model=", None),
        ("model=none", None),
        ("model=NULL", None),
        ("model= llama3:8b", " llama3:8b"),
        ("think=off", False),
        ("think=none", None),
        ("task_distribution_enabled=NO", False),
        ("distributed_inference_enabled=1", True),
        ("call_timeout=off", None),
        ("call_timeout=.5", 0.5),
        ("call_timeout=1e2", 100.0),
        ("retries= 3 ", 3),
        ("num_ctx=none", None),
        ("keep_alive=-1", "-1"),
        ("nodes=", []),
        ("nodes=http://a, https://b:443/ ,", [NodeSettings(url="http://a"), NodeSettings(url="https://b")]),
        ('nodes=[{"url": "http://a", "parallel": 2}]', [NodeSettings(url="http://a", parallel=2)]),
        ("rpc_backends=H:1,10.0.0.4", [RpcBackendSettings(host="h", port=1), RpcBackendSettings(host="10.0.0.4")]),
        ('pipeline_inputs={"rounds": 2}', {"rounds": 2}),
        ("pipeline_inputs.rounds=2", {"rounds": 2}),
        ("pipeline_inputs.a.b=", {"a.b": ""}),
        ('pipeline_inputs.x={"a": 1, "a": 2}', {"x": '{"a": 1, "a": 2}'}),
    ],
)
def test_text_is_read_by_the_type_of_its_setting(home: Path, override: str, expected: Any) -> None:
    assert home.is_dir()
    name = override.partition("=")[0].partition(".")[0]
    assert getattr(load(overrides=[override]).settings, name) == expected
    if "." not in override.partition("=")[0]:
        variable = {f"SYNAPTIC_{name.upper()}": override.partition("=")[2]}
        assert getattr(load(environ=variable).settings, name) == expected


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model", "'model' has no '='; write KEY=VALUE, as in model=llama3.1:8b"),
        ("", "has no '='; write KEY=VALUE"),
        ("=x", "unknown setting ''"),
        ("modle=x", "unknown setting 'modle'; did you mean 'model'?"),
        ("zzzzzz=x", "unknown setting 'zzzzzz'; 'synaptic config show' lists all that there are"),
        ("model.x=1", "'model.x' is not part of a setting; write model=VALUE"),
        ("agent_models.=x", "'agent_models.' is not part of a setting; write agent_models.NAME=VALUE"),
        ("agent_models.editor=", "agent_models.editor must not be empty; write the model's name, or remove the agent"),
        ("agent_models=x", 'agent_models must be an object, not "x"; write agent_models.editor=llama3.1:70b'),
        ('agent_models={"": "x"}', "agent_models names a model for no agent"),
        ('agent_models={"a": 1}', "agent_models.a must be text, not 1"),
        ("retries=many", 'retries must be a whole number, not "many"; write retries=2'),
        ("retries=2.0", 'retries must be a whole number, not "2.0"; write retries=2'),
        ("retries=11", "retries must be at most 10, not 11; write retries=2"),
        ("retries=", 'retries must be a whole number, not ""; write retries=2'),
        ("pool_max_wait=1h", 'pool_max_wait must be a number, not "1h"; write pool_max_wait=3600'),
        ("call_timeout=1h30m", 'call_timeout must be a number, not "1h30m"; write call_timeout=5400'),
        ("coordinator_idle=90 min", "write coordinator_idle=5400"),
        ("num_ctx=8k", 'num_ctx must be a whole number, not "8k"; write num_ctx=8192'),
        ("distributed_context=32K", "write distributed_context=32768"),
        ("max_tokens=2k", 'max_tokens must be a whole number, not "2k"; write max_tokens=2000'),
        ("tensor_cache_gib=512 MB", "write tensor_cache_gib=0.5"),
        ("local_worker_memory_gib=8GB", "write local_worker_memory_gib=8"),
        ("temperature=70%", "write temperature=0.7"),
        ("idle_timeout=5 lines", "write idle_timeout=60"),
        ("think=maybe", 'think must be true or false, not "maybe"; write think=false'),
        ("idle_timeout=-1", "idle_timeout must be greater than 0, not -1; write idle_timeout=60, or none for no limit"),
        ("temperature=nan", 'temperature must be a number, not "nan"'),
        ("call_timeout=1e999", "call_timeout must be a finite number"),
        ("keep_alive=soon", 'keep_alive must be a duration, not "soon"; write keep_alive=5m, or "1h30m"'),
        ("nodes=localhost:11434", 'nodes[0].url has no scheme; write "http://localhost:11434"'),
        ("nodes=foo:bar:baz", 'nodes[0].url has no scheme; write "http://127.0.0.1:11434"'),
        ('nodes={"url": "http://a"}', "nodes must be a list, not an object; write nodes=http://127.0.0.1:11434"),
        ("num_ctx=4096.0", "write num_ctx=4096"),
        ("temperature=0,5", "write temperature=0.5"),
        (
            "rpc_backends=[10.0.0.4:50052]",
            (
                "the JSON of rpc_backends has no double quotes, which a shell takes away; "
                "put the whole value into single quotes, or write rpc_backends=10.0.0.4:50052"
            ),
        ),
        ("agent_models={editor: llama3.2}", "single quotes, or write agent_models.editor=llama3.1:70b"),
        ("nodes=[1,]", "nodes: broken JSON: a comma before the closing ']' (line 1, column 3 of the value)"),
        ("nodes=[{}]", "nodes[0].url is missing; write http://127.0.0.1:11434 there"),
        ("rpc_backends=[3]", "rpc_backends[0] must be an object, not 3; write"),
        ('pipeline_inputs={"a": 1, "a": 2}', "pipeline_inputs: the key 'a' stands here again"),
        ("model=\ud800", "the value of model is not UTF-8 text"),
        ("agent_models.\ud800=x", "is not part of a setting"),
    ],
)
def test_a_wrong_argument_says_what_to_write(home: Path, override: str, said: str) -> None:
    assert home.is_dir()
    (problem,) = problems(overrides=[override])
    assert problem.startswith("--set: ")
    assert said in problem


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SYNAPTIC_MODLE", "x", "unknown variable; did you mean SYNAPTIC_MODEL?"),
        ("SYNAPTIC_model", "x", "unknown variable; did you mean SYNAPTIC_MODEL?"),
        ("SYNAPTIC_CONFIG_FIL", "x", "did you mean SYNAPTIC_CONFIG_FILE?"),
        ("SYNAPTIC_QWXYZQWXYZQWXYZ", "x", "unknown variable; unset it"),
        ("SYNAPTIC_RETRIES", "x", 'retries must be a whole number, not "x"; write SYNAPTIC_RETRIES=2'),
        ("SYNAPTIC_AGENT_MODELS", "x", 'write SYNAPTIC_AGENT_MODELS=\'{"editor": "llama3.1:70b"}\''),
        ("SYNAPTIC_RPC_BACKENDS", "{}", "not an object; write SYNAPTIC_RPC_BACKENDS=10.0.0.4:50052"),
        ("SYNAPTIC_NODES", "http://a,http://A:11434/", "nodes[1] is the same address as nodes[0], http://a:11434"),
        ("SYNAPTIC_NODES", '[{"url": "http://a", "parallel": "2"}]', "nodes[0].parallel must be a whole number"),
    ],
)
def test_a_wrong_variable_says_what_to_write(home: Path, variable: str, value: str, said: str) -> None:
    assert home.is_dir()
    (problem,) = problems(environ={variable: value, "OTHER": "x"})
    assert problem.startswith(f"{variable}: ")
    assert said in problem


def test_a_wrong_flag_says_what_to_write(home: Path) -> None:
    assert home.is_dir()
    assert problems(flags={"model": ("-m", "")}) == ["-m: model must not be empty; write -m llama3.1:8b"]
    assert problems(flags={"model": ("-m", "\udcff")})[0].startswith("-m: model is not valid Unicode text")
    assert problems(flags={"modle": ("-m", "x")}) == ["-m: unknown setting 'modle'; did you mean 'model'?"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('"modle": "x"', "unknown setting 'modle'; did you mean 'model'?"),
        ('"model": 3', 'model must be text, not 3; write "model": "3"'),
        ('"model": ["a"]', 'model must be text, not a list; write "model": "llama3.1:8b"'),
        ('"overflow": "truncate"', 'overflow must be error, truncate_oldest or summarise, not "truncate"; '),
        ('"overflow": "cut"', 'not "cut"; write "overflow": "summarise"'),
        ('"max_tokens": 0', 'must be at least 1, not 0; write "max_tokens": 1024, or null for no limit'),
        ('"retries": "3"', 'retries must be a whole number, not "3"; write 3 without quotes'),
        ('"retries": 2.0', 'retries must be a whole number, not 2.0; write "retries": 2'),
        ('"retries": 2.5', 'retries must be a whole number, not 2.5; write "retries": 2'),
        ('"retries": true', 'retries must be a whole number, not true; write "retries": 2'),
        ('"retries": -1', "retries must be at least 0, not -1"),
        ('"temperature": true', "temperature must be a number, not true"),
        ('"call_timeout": "1.5"', 'call_timeout must be a number, not "1.5"; write 1.5 without quotes'),
        ('"call_timeout": 0', 'must be greater than 0, not 0; write "call_timeout": 600, or null for no limit'),
        ('"think": "Yes"', 'think must be true or false, not "Yes"; write "think": true'),
        ('"think": 1', "think must be true or false, not 1"),
        ('"keep_alive": true', 'keep_alive must be text, not true; write "keep_alive": "5m"'),
        ('"num_ctx": 100', "num_ctx must be at least 256, not 100"),
        ('"num_ctx": 10485761', "num_ctx must be at most 10485760, not 10485761"),
        ('"embedded_context": 10485761', "embedded_context must be at most 10485760"),
        ('"distributed_context": 10485761', "distributed_context must be at most 10485760"),
        ('"embedded_threads": 5000', "embedded_threads must be at most 512, not 5000"),
        ('"local_worker_threads": 5000', "local_worker_threads must be at most 512, not 5000"),
        ('"max_tokens": 1000001', "max_tokens must be at most 1000000, not 1000001"),
        ('"agent_models": {"editor": 3}', 'agent_models.editor must be text, not 3; write "editor": "3"'),
        ('"agent_models": {"editor": null}', 'must be text, not null; write "editor": "llama3.1:70b"'),
        ('"agent_models": []', 'agent_models must be an object, not a list; write "agent_models": {"editor":'),
        ('"nodes": "http://a"', 'nodes must be a list, not "http://a"; write "nodes": [{"url":'),
        ('"nodes": [3]', 'nodes[0] must be an object, not 3; write {"url": "http://127.0.0.1:11434"}'),
        ('"nodes": [{}]', 'nodes[0].url is missing; write "url": "http://127.0.0.1:11434"'),
        ('"nodes": [{"url": "http://a", "paralel": 2}]', "setting 'paralel' in nodes[0]; did you mean 'parallel'?"),
        ('"nodes": [{"url": "http://a", "parallel": true}]', "nodes[0].parallel must be a whole number, not true"),
        ('"nodes": [{"url": "http://a", "parallel": 65}]', "nodes[0].parallel must be at most 64, not 65"),
        ('"nodes": ["http://a:0"]', "nodes[0].url has the port '0', but ports are 1 to 65535"),
        ('"nodes": ["http://a:70000"]', "nodes[0].url has the port '70000', but ports are 1 to 65535"),
        ('"nodes": ["ftp://a"]', "has the scheme 'ftp', but it must be http or https; write \"http://a\""),
        ('"nodes": ["localhost:11434"]', 'nodes[0].url has no scheme; write "http://localhost:11434"'),
        ('"nodes": ["http://a", "HTTP://A:11434/"]', "nodes[1] is the same address as nodes[0], http://a:11434"),
        ('"rpc_backends": ["a:1", {"host": "a", "port": 1}]', "rpc_backends[1] is the same address as rpc_backends[0]"),
        ('"rpc_backends": [{"host": "a", "port": 0}]', "rpc_backends[0].port must be at least 1, not 0"),
        ('"rpc_backends": ["a:99999"]', "rpc_backends[0] has the port '99999', but ports are 1 to 65535"),
        ('"rpc_backends": [{"host": "tcp://a:1"}]', "rpc_backends[0].host has a scheme, but a worker is named by"),
        ('"rpc_backends": [{"host": "a:1"}]', 'host has a port in it; write "host": "a" and "port": 1'),
        ('"coordinator_url": "http://c/v1"', 'ends in the path of an API; write "http://c:18080"'),
        ('"retries": 1, "retries": 2', "the key 'retries' stands here again; it is also at line 2"),
        ('"pipeline_inputs": {"a": NaN}', "broken JSON: a number that JSON does not have; write a finite number"),
    ],
)
def test_a_wrong_value_in_a_file_says_where_and_what_to_write(home: Path, line: str, said: str) -> None:
    path = write(home, "{\n  " + line + "\n}")
    (problem,) = problems()
    assert problem.startswith(f"{path}:2:")
    assert said in problem


def test_a_mistake_is_located_at_its_own_key(home: Path) -> None:
    path = write(home, '{"nodes": [\n  {"url": "http://a",\n   "parallel": 0},\n  "b"]}')
    assert [problem.split(" ")[0] for problem in problems()] == [f"{path}:3:4:", f"{path}:4:3:"]


def test_all_mistakes_of_all_sources_come_at_once(home: Path, tmp_path: Path) -> None:
    user = write(home, {"retries": -1, "modle": "x"})
    write(tmp_path, "{broken", "synapticllamas.json")
    found = problems(environ={"SYNAPTIC_X": "1"}, overrides=["y=1"], flags={"model": ("-m", "")})
    assert [problem.split(" ")[0] for problem in found] == [
        f"{user}:2:2:",
        f"{user}:3:2:",
        "./synapticllamas.json:1:2:",
        "SYNAPTIC_X:",
        "--set:",
        "-m:",
    ]


def test_a_mistake_counts_also_where_a_higher_source_hides_it(home: Path) -> None:
    write(home, {"retries": "x"})
    assert len(problems(overrides=["retries=1"])) == 1


@pytest.mark.parametrize(
    "text",
    [
        '{"nodes": ["http://me:hunter2@host"]}',
        '{"nodes": ["ftp://me:hunter2@host"]}',
        '{"nodes": ["me:hunter2@host"]}',
        '{"nodes": ["http://me:hun/ter2hunter2@host"]}',
        '{"nodes": "http://me:hunter2@host"}',
        '{"rpc_backends": ["me:hunter2@host"]}',
        '{"rpc_backends": [{"host": "me:hunter2@host"}]}',
        '{"coordinator_url": "http://me:hunter2@host"}',
        '{"redis_pasword": "hunter2"}',
        '{"redis_password": "hunter2", "api_key": "hunter2"}',
        '{"redis_password": hunter2}',
        "{\"redis_password\": 'hunter2'}",
        '{"redis_password": "hunter2}',
        '{"keep_alive": "http://me:hunter2@host"}',
    ],
)
def test_no_message_repeats_a_secret(home: Path, text: str) -> None:
    write(home, text)
    assert not any("hunter2" in problem for problem in problems())


def test_wrong_settings_in_a_program_are_an_error_of_the_library_that_repeats_no_secret() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(nodes=["http://me:hunter2@host"])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "values", "said"),
    [
        (Settings, {"nodes": "x"}, "Settings: nodes must be a list"),
        (Settings, {"nodes": [{"url": 3}]}, "Settings: nodes[0].url must be text"),
        (Settings, {"modle": "x"}, "Settings: there is no setting modle; did you mean 'model'?"),
        (Settings, {"agent_models": {"editor": 1}}, "Settings: agent_models.editor must be text"),
        (NodeSettings, {}, "NodeSettings: url is missing"),
        (RpcBackendSettings, {"host": "a", "port": 70000}, "RpcBackendSettings: port must be at most 65535"),
    ],
)
def test_what_is_wrong_in_a_program_is_said(make: type[Any], values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**values)
    assert str(caught.value) == said
    assert len(caught.value.problems) == 1


def test_a_file_named_with_config_replaces_the_users_and_must_exist(home: Path, tmp_path: Path) -> None:
    write(home, {"model": "user"})
    other = write(tmp_path, {"retries": 7}, "other.json")
    loaded = load(config_path=other)
    assert (loaded.settings.model, loaded.settings.retries) == (None, 7)
    assert loaded.origins["retries"] == f"{other}:2"
    missing = tmp_path / "missing.json"
    assert problems(config_path=missing) == [f"{missing}: there is no such file; check the path"]
    assert problems(config_path=tmp_path)[0].startswith(f"{tmp_path}: a directory")


def test_a_file_named_in_the_environment_counts_as_one_named_with_config(home: Path, tmp_path: Path) -> None:
    write(home, {"model": "at-home"}, "mine.json")
    other = write(tmp_path, {"model": "other"}, "other.json")
    environ = {"SYNAPTIC_CONFIG_FILE": "~/mine.json"}
    assert load(environ=environ).settings.model == "at-home"
    assert load(environ=environ, config_path=other).settings.model == "other"
    assert settings_path(environ=environ) == home / "mine.json"
    assert settings_path(other, environ) == other
    assert settings_path(environ={"SYNAPTIC_CONFIG_FILE": ""}) == home / ".synapticllamas.json"


@pytest.mark.parametrize("name", [".synapticllamas.json", "synapticllamas.json", ".synapticllamas_nodes.json"])
def test_a_directory_in_the_place_of_a_default_file_is_an_error(home: Path, tmp_path: Path, name: str) -> None:
    ((tmp_path if name == "synapticllamas.json" else home) / name).mkdir()
    (problem,) = problems()
    assert "a directory, where a settings file belongs" in problem


def test_a_user_without_a_home_has_no_user_file(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from synaptic.settings import load_settings\n"
        "if os.geteuid() == 0:\n"
        "    os.setgroups([]); os.setgid(61234); os.setuid(61234)\n"
        "    print(load_settings(environ={}, cwd=Path('/nonexistent')).origins['model'])\n"
        "else:\n"
        "    print('default')\n"
    )
    # Nobody may not write the coverage data either.
    environ = {key: value for key, value in os.environ.items() if key != "HOME" and not key.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=environ, cwd=tmp_path
    )
    assert (done.stdout, done.stderr) == ("default\n", "")


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.text(max_size=40)
    | st.dictionaries(
        st.sampled_from([*Settings.model_fields, *ALIASES, *MAPPED, *sorted(IGNORED), "other"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["url", "host", "x"]), inner),
            max_leaves=6,
        ),
        max_size=5,
    )
)
def test_any_text_is_settings_or_a_config_error(content: str | dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "s.json")
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_bytes(text.encode(errors="surrogatepass"))
        outcome = attempt(config_path=path, environ={}, cwd=Path(directory))
    if isinstance(outcome, LoadedSettings):
        assert json.dumps(describe(outcome))
    else:
        assert outcome.problems
        assert all("\n" not in str(problem) for problem in outcome.problems)
        assert str(outcome).encode()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*Settings.model_fields, "agent_models.x", "pipeline_inputs.x", ""]), st.text(max_size=20))
def test_any_argument_is_settings_or_a_config_error(key: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        empty = write(Path(directory), "{}")
        for overrides in ([f"{key}={text}"], [text]):
            outcome = attempt(config_path=empty, environ={}, cwd=Path(directory), overrides=overrides)
            assert isinstance(outcome, LoadedSettings) or outcome.problems


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("http://LocalHost", "http://localhost:11434"),
        (" http://a:80/ ", "http://a:80"),
        ("HTTPS://A:443/", "https://a"),
        ("https://a:8443", "https://a:8443"),
        ("http://[::1]", "http://[::1]:11434"),
        ("http://[0:0::1]:5", "http://[::1]:5"),
        ("http://[FE80::1%25Eth0]:5", "http://[fe80::1%Eth0]:5"),
        ("http://[fe80::1%eth0]", "http://[fe80::1%eth0]:11434"),
        ("http://[fe80::1%253]/ollama", "http://[fe80::1%3]:11434/ollama"),
        ("http://[fe80::1%25]", "http://[fe80::1%25]:11434"),
        ("http://10.0.0.2:1/ollama/", "http://10.0.0.2:1/ollama"),
        ("http://m\u00fcller.example", "http://m\u00fcller.example:11434"),
        ("http://a.", "http://a.:11434"),
    ],
)
def test_equal_addresses_are_equal_text(text: str, normal: str) -> None:
    assert normal_url(text, default_port=11434) == normal
    assert normal_url(normal, default_port=1) == normal


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", 'is empty\n  write "http://127.0.0.1:11434"'),
        ("http://", "has no host"),
        ("http://:80", "has no host"),
        ("http:a", 'has no scheme\n  write "http://a"'),
        ("http:/a", 'write "http://a"'),
        ("http://a b", "has a blank"),
        ("http://a\\b", "has a blank or a backslash"),
        ("http://a?x=1", 'has a query or a fragment\n  write "http://a"'),
        ("http://a#x", "has a query or a fragment"),
        ("http://a/api/chat", 'ends in the path of an API\n  write "http://a:11434"'),
        ("http://a:x", "has the port 'x'"),
        ("http://a:", "has the port ''"),
        ("http://a:" + "9" * 5000, "has the port"),
        ("http://::1", "brackets"),
        ("http://[::1", "brackets"),
        ("http://[fe80::1%]", "does not exist"),
        ("http://fe80::1:80", "brackets"),
        ("http://[::zz]", "an IP address that does not exist"),
        ("http://300.1.1.1", "an IP address that does not exist"),
        ("http://-a", "neither a name nor an IP address"),
        ("http://a,b", "neither a name nor an IP address"),
    ],
)
def test_what_is_no_address_says_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        normal_url(text, default_port=11434)
    assert said in str(caught.value)


def test_a_host_is_a_name_or_an_ip_address() -> None:
    assert normal_host(" Desk_1.lan ") == "desk_1.lan"
    assert normal_host("[::1]") == "[::1]"


def test_numbers_are_taken_for_keep_alive(home: Path) -> None:
    write(home, {"keep_alive": -1})
    assert load().settings.keep_alive == "-1"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().model = "x"  # type: ignore[misc]


def test_describe_is_json_in_the_order_of_the_fields(home: Path) -> None:
    write(home, {"nodes": ["http://a"]})
    rows = describe(load(flags={"model": ("-m", "x")}))
    assert [name for name, _, _ in rows] == list(Settings.model_fields)
    assert ("model", "x", "-m") in rows
    assert json.loads(json.dumps({name: value for name, value, _ in rows}))["nodes"] == [
        {"url": "http://a:11434", "parallel": 1}
    ]


def test_set_changes_one_value_and_keeps_the_rest_in_order(home: Path) -> None:
    path = write(home, '{"retries": 1, "mode": "x",\n "model": "a", "agent_timeout": 9, "redis_password": "p"}')
    set_value(path, "model", "b:8b")
    set_value(path, "agent_models.editor", "big")
    set_value(path, "nodes", "http://A,http://b:1")
    set_value(path, "call_timeout", "30")
    assert list(json.loads(path.read_text()).items()) == [
        ("retries", 1),
        ("mode", "x"),
        ("model", "b:8b"),
        ("agent_timeout", 9),
        ("redis_password", "p"),
        ("agent_models", {"editor": "big"}),
        ("nodes", [{"url": "http://a:11434"}, {"url": "http://b:1"}]),
        ("call_timeout", 30),
    ]
    set_value(path, "agent_models.critic", "small")
    assert load().settings.agent_models == {"editor": "big", "critic": "small"}


def test_set_makes_the_file_where_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    set_value(path, "think", "off")
    assert json.loads(path.read_text()) == {"think": False}


def test_set_puts_the_value_under_its_own_name_where_the_alias_stood(home: Path) -> None:
    path = write(home, {"model_sharding_enabled": False, "retries": 1})
    set_value(path, "distributed_inference_enabled", "true")
    assert list(json.loads(path.read_text()).items()) == [("distributed_inference_enabled", True), ("retries", 1)]
    write(home, {"distributed_inference_enabled": True, "model_sharding_enabled": True})
    set_value(path, "model_sharding_enabled", "false")
    assert json.loads(path.read_text()) == {"distributed_inference_enabled": False}


@pytest.mark.parametrize(
    ("content", "key", "raw", "said"),
    [
        ('{"model": "a"}', "modle", "x", "config set: unknown setting 'modle'; did you mean 'model'?"),
        ('{"model": "a"}', "retries", "x", "config set: retries must be a whole number"),
        ('{"model": "a",}', "model", "b", "broken JSON"),
        ('{"model": "a", "model": "b"}', "model", "c", "stands here again"),
        ('{"modle": "a"}', "model", "b", ":1:2: unknown setting 'modle'"),
        ("", "model", "b", "the file is empty"),
    ],
)
def test_set_refuses_what_is_wrong_and_leaves_the_file(home: Path, content: str, key: str, raw: str, said: str) -> None:
    path = write(home, content)
    with pytest.raises(ConfigError) as caught:
        set_value(path, key, raw)
    assert said in str(caught.value)
    assert path.read_text() == content


def test_set_mends_a_value_that_was_wrong(home: Path) -> None:
    path = write(home, {"retries": "many", "agent_models": []})
    with pytest.raises(ConfigError, match="agent_models must be an object"):
        set_value(path, "retries", "1")
    set_value(write(home, {"agent_models": []}), "agent_models.editor", "x")
    assert json.loads(path.read_text()) == {"agent_models": {"editor": "x"}}


def test_unset_removes_a_setting_under_every_name(home: Path) -> None:
    content = {
        "model": "a",
        "agent_timeout": 5,
        "model_sharding_enabled": True,
        "agent_models": {"editor": "e", "critic": "c"},
        "synthesis_model": "s",
        "strategy": "gpu",
    }
    path = write(home, content)
    assert unset_value(path, "call_timeout")
    assert unset_value(path, "distributed_inference_enabled")
    assert unset_value(path, "agent_models.editor")
    assert unset_value(path, "strategy")
    assert json.loads(path.read_text()) == {"model": "a", "agent_models": {"critic": "c"}}
    assert not unset_value(path, "call_timeout")
    assert not unset_value(home / "none.json", "model")
    assert unset_value(path, "agent_models.critic")
    assert json.loads(path.read_text()) == {"model": "a"}
    set_value(path, "agent_models.critic", "c")
    assert unset_value(path, "agent_models")
    assert json.loads(path.read_text()) == {"model": "a"}


def test_unset_removes_a_key_that_should_not_be_there_and_knows_the_others(home: Path) -> None:
    path = write(home, {"modle": "a", "retries": 1})
    assert unset_value(path, "modle")
    with pytest.raises(ConfigError, match="config unset: unknown setting 'modle'; did you mean 'model'"):
        unset_value(path, "modle")
    write(home, {"modle": "a", "retries": 1})
    with pytest.raises(ConfigError, match=":2:2: unknown setting 'modle'"):
        unset_value(path, "retries")


def test_the_example_loads_without_a_notice(home: Path) -> None:
    loaded = load(config_path=ROOT / "synapticllamas.example.json")
    assert home.is_dir()
    assert loaded.notices == ()
    assert sorted(name for name, origin in loaded.origins.items() if origin != "default") == [
        "coordinator_url",
        "distributed_inference_enabled",
        "model",
        "nodes",
        "rpc_backends",
        "task_distribution_enabled",
    ]


def test_the_reference_has_every_setting_older_key_and_variable() -> None:
    text = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert [row for row in all_rows() if row not in lines] == []
    assert [name for name in (*MAPPED, *ALIASES, *IGNORED) if f"`{name}`" not in text] == []
    assert [f"| `{name}` | {meaning} |" for name, meaning in OTHER_VARIABLES.items()] == [
        line for line in lines if line.startswith("| `SYNAPTIC_")
    ]


def test_importing_the_settings_loads_nothing_heavy() -> None:
    code = (
        "import sys, synaptic.settings.load\n"
        "heavy = {'httpx', 'yaml', 'jinja2', 'rich', 'prompt_toolkit', 'psutil'}\n"
        "print(sorted(heavy & set(sys.modules) - before))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import sys\nimport pydantic\nbefore = set(sys.modules)\n" + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "[]\n"
