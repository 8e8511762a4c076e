"""Nodes in settings: what may stand there, what may not, and changing the list without touching anything else."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from synaptic.errors import ConfigError
from synaptic.settings import NodeSettings, Settings, load_settings
from synaptic.settings.edit import add_node, find_node, read_node, remove_node, stored_nodes, written_url

SECRET = "sk-very-secret-1234"


def problems(*nodes: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(overrides=[f"nodes={json.dumps(list(nodes))}"], environ={})
    return [problem.message + "; " + (problem.suggestion or "") for problem in caught.value.problems]


def node(**values: Any) -> NodeSettings:
    return read_node({"url": "http://a:11434", **values})


def test_the_pool_has_sane_defaults():
    settings = Settings()
    assert (settings.pool_queue, settings.pool_max_wait, settings.pool_recovery_wait) == (10_000, 600.0, 30.0)
    assert (settings.failovers, settings.hedge) == (2, False)


def test_waiting_for_ever_is_null_and_recovery_has_an_end():
    assert load_settings(overrides=["pool_max_wait=off"], environ={}).settings.pool_max_wait is None
    with pytest.raises(ConfigError, match="pool_recovery_wait must be a number"):
        load_settings(overrides=["pool_recovery_wait=off"], environ={})


@pytest.mark.parametrize(
    "value", ["pool_queue=0", "pool_max_wait=0", "pool_recovery_wait=-1", "failovers=11", "hedge=3"]
)
def test_a_wrong_value_is_named(value: str):
    with pytest.raises(ConfigError, match=value.partition("=")[0]):
        load_settings(overrides=[value], environ={})


@pytest.mark.parametrize("key", ["token", "password", "api_key", "bearer_token", "secret", "Token"])
def test_a_secret_in_the_file_is_refused_without_being_shown(key: str):
    (problem,) = problems({"url": "http://a", key: SECRET})
    assert "is a secret, and settings are no place for those" in problem
    assert '_env": "' in problem
    assert '_file": "PATH"' in problem
    assert SECRET not in problem


def test_a_secret_in_the_address_is_refused_without_being_shown():
    (problem,) = problems(f"http://ada:{SECRET}@a")
    assert '"username" and "password_env" beside it' in problem
    assert SECRET not in problem


def test_a_secret_where_a_variable_belongs_is_not_shown():
    (problem,) = problems({"url": "http://a", "token_env": SECRET})
    assert "nodes[0].token_env must be the name of an environment variable" in problem
    assert SECRET not in problem


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"token_env": "A", "token_file": "b"}, "has both token_env and token_file"),
        ({"username": "a", "password_env": "A", "password_file": "b"}, "has both password_env and password_file"),
        ({"username": "a", "password_env": "A", "token_env": "B"}, "has a token and password_env as well"),
        ({"username": "a"}, "has a username and no password"),
        ({"password_env": "A"}, "has a password and no username"),
        ({"ca_file": "a.pem"}, "an address without https"),
        ({"token_env": "SYNAPTIC_TOKEN"}, "must not begin with SYNAPTIC_"),
        ({"token_env": ""}, "must be the name of an environment variable"),
        ({"memory_gib": 0}, "must be greater than 0"),
        ({"memory_gib": "24"}, "must be a number"),
        ({"nme": "x"}, "did you mean 'name'?"),
    ],
)
def test_what_does_not_go_together_is_said(values: dict[str, Any], wrong: str):
    (problem,) = problems({"url": "http://a", **values})
    assert wrong in problem
    with pytest.raises(ConfigError) as caught:
        node(**values)
    assert "nodes[0]" not in str(caught.value)


def test_no_representation_of_settings_shows_more_than_where_a_secret_is():
    settings = Settings(nodes=[node(token_env="DESK_TOKEN")])
    assert "DESK_TOKEN" in repr(settings)


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("desk", "http://desk:11434"),
        ("10.0.0.2", "http://10.0.0.2:11434"),
        ("10.0.0.2:8080", "http://10.0.0.2:8080"),
        ("[::1]:80", "http://[::1]:80"),
        ("https://gpu.example.net/ollama/", "https://gpu.example.net/ollama"),
        (" HTTP://Desk ", "http://desk:11434"),
    ],
)
def test_an_address_as_people_type_it(typed: str, url: str):
    assert written_url(typed) == url


@pytest.mark.parametrize("typed", ["", "  ", "ftp://desk", "http://desk:99999", "a b", "http://desk/api/chat", "::1"])
def test_what_is_no_address_is_refused_with_advice(typed: str):
    with pytest.raises(ConfigError, match="the address") as caught:
        written_url(typed)
    assert caught.value.hint


def test_a_password_in_an_address_is_not_shown():
    with pytest.raises(ConfigError) as caught:
        written_url(f"http://ada:{SECRET}@desk")
    assert "--password-env" in str(caught.value.hint)
    assert SECRET not in f"{caught.value}{caught.value.hint}"


# -- the file --------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings.json"


def test_adding_keeps_everything_else_as_it_was(path: Path):
    before = {"model": "m", "nodes": ["http://b", {"url": "http://c", "name": "c"}], "retries": 1, "strategy": "old"}
    path.write_text(json.dumps(before))
    added = add_node(path, node(name="desk", token_env="DESK_TOKEN"))
    after = json.loads(path.read_text())
    new = {"url": "http://a:11434", "name": "desk", "token_env": "DESK_TOKEN"}
    assert after == {**before, "nodes": [*before["nodes"], new]}
    assert list(after) == list(before)
    assert (added.before, added.taken_over) == (2, "")


def test_the_first_node_makes_a_file_for_its_owner_alone(path: Path):
    assert add_node(path, node()).before == 0
    assert json.loads(path.read_text()) == {"nodes": [{"url": "http://a:11434"}]}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_twin_and_a_taken_name_are_refused_and_nothing_is_written(path: Path):
    add_node(path, node(name="desk"))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="is one of the nodes already, as desk") as twin:
        add_node(path, node())
    assert "nodes remove desk" in str(twin.value.hint)
    with pytest.raises(ConfigError, match="there is a node called desk already"):
        add_node(path, read_node({"url": "http://b:1", "name": "desk"}))
    assert path.read_bytes() == before


def test_a_broken_file_is_not_written(path: Path):
    path.write_text('{"modle": 1}')
    for change in (lambda: add_node(path, node()), lambda: remove_node(path, "a"), lambda: stored_nodes(path)):
        with pytest.raises(ConfigError, match="did you mean 'model'"):
            change()
    assert path.read_text() == '{"modle": 1}'


@pytest.mark.parametrize("which", ["desk", "http://a:11434", "a", "HTTP://A:11434/"])
def test_removing_by_name_or_address(path: Path, which: str):
    add_node(path, read_node({"url": "http://b:1"}))
    add_node(path, node(name="desk"))
    assert remove_node(path, which).name == "desk"
    assert [left.url for left in stored_nodes(path)] == ["http://b:1"]


def test_what_is_not_there_is_said_with_what_is(path: Path):
    with pytest.raises(ConfigError, match="there are no nodes in"):
        remove_node(path, "desk")
    add_node(path, node(name="desk"))
    with pytest.raises(ConfigError) as caught:
        remove_node(path, "desl")
    assert caught.value.hint == "did you mean desk?"
    with pytest.raises(ConfigError) as other:
        remove_node(path, "zzz")
    assert other.value.hint == "the nodes are desk"


def test_a_name_that_two_have_is_no_name():
    twins = [node(name="x"), read_node({"url": "http://b:1", "name": "x"})]
    with pytest.raises(ConfigError, match="2 nodes are called x") as caught:
        find_node(twins, "x", "here")
    assert "http://b:1" in str(caught.value.hint)


def test_the_nodes_of_the_older_program_are_not_hidden_by_a_new_one(own_home: Path):
    old = own_home / ".synapticllamas_nodes.json"
    old.write_text(json.dumps({"nodes": [{"url": "http://old:1", "name": "old", "priority": 3}]}))
    added = add_node(own_home / ".synapticllamas.json", node())
    assert (added.before, added.taken_over) == (1, str(old))
    urls = [entry.url for entry in load_settings(environ={}).settings.nodes]
    assert urls == ["http://old:1", "http://a:11434"]
    assert remove_node(own_home / ".synapticllamas.json", "old").url == "http://old:1"
    assert [entry.url for entry in load_settings(environ={}).settings.nodes] == ["http://a:11434"]


def test_the_one_address_of_the_older_program_is_taken_over(path: Path):
    path.write_text('{"ollama_url": "http://old:1"}')
    assert add_node(path, node()).taken_over == "ollama_url"
    assert [entry.url for entry in stored_nodes(path)] == ["http://old:1", "http://a:11434"]


def test_a_file_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path):
    if os.geteuid() == 0:
        path = tmp_path / "missing" / "settings.json"
    else:
        tmp_path.chmod(0o500)
        path = tmp_path / "settings.json"
    with pytest.raises(ConfigError, match="cannot be written"):
        add_node(path, node())
