"""How machines are written and kept."""

import json

import pytest

from synaptic import paths
from synaptic.cluster.machine_list import Machine, check_name, forget, keep, machine, machines, parse_address
from synaptic.errors import UsageError

DESK = Machine(name="desk", host="10.0.0.4", user="ada", memory_gib=4.0, local_port=20_001)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("ada@10.0.0.4", ("ada", "10.0.0.4", 22)),
        ("desk", (None, "desk", 22)),
        ("ada@desk:2222", ("ada", "desk", 2222)),
        ("ada@[fe80::1]:2222", ("ada", "fe80::1", 2222)),
    ],
)
def test_an_address_is_user_host_and_port(text: str, parts: tuple[str | None, str, int]):
    assert parse_address(text) == parts


@pytest.mark.parametrize(
    "text", ["", "a b", "ada@", "@desk", "desk:0", "desk:99999", "desk:x", "-oProxyCommand=x", "a@b@c"]
)
def test_what_is_no_address_is_refused(text: str):
    with pytest.raises(UsageError, match="is no address of a machine"):
        parse_address(text)


@pytest.mark.parametrize("text", ["", "a b", "../x", "-x", "x" * 64, "a/b"])
def test_what_is_no_name_is_refused(text: str):
    with pytest.raises(UsageError, match="is no name of a machine"):
        check_name(text)


@pytest.mark.usefixtures("own_home")
def test_machines_are_kept_in_order_and_replaced_by_name():
    assert machines() == []
    attic = Machine(name="attic", host="10.0.0.5", local_port=20_002)
    keep(DESK)
    keep(attic)
    assert machines() == [DESK, attic]
    assert machine("desk") == DESK
    with pytest.raises(UsageError, match="there is no machine 'dask'") as caught:
        machine("dask")
    assert caught.value.hint == "did you mean 'desk'?"
    forget("desk")
    assert machines() == [attic]


@pytest.mark.usefixtures("own_home")
def test_a_damaged_file_is_told_and_stays():
    keep(DESK)
    file = paths.machines_file()
    text = file.read_text().replace("10.0.0.4", "10.0.0.6")
    file.write_text(text)
    with pytest.raises(UsageError, match=r"machines\.json"):
        machines()
    assert file.read_text() == text
    assert "password" not in json.dumps(json.loads(text))
