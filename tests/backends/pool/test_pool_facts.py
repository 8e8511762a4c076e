"""What a node says of its models: read with care, merged with what calls have seen; which two names are one server."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synaptic.backends.pool.node.facts import SEEN_COUNTS, LoadedModel, read_facts, read_shown, update
from synaptic.backends.pool.node.identity import HERE, ServerAddress, own_addresses, place_of, twins
from synaptic.backends.pool.node.state import ModelState, NodeState

GB = 10**9
TAGS = {
    "models": [
        {"name": "llama3:8b", "size": 5 * GB, "digest": "aa", "details": {"family": "llama"}},
        {"model": "phi", "size": 2 * GB, "digest": "bb"},
        {"name": "nomic-embed-text", "size": GB, "details": {"family": "nomic-bert"}},
        {"name": "gpt-oss:120b-cloud", "size": 300, "remote_host": "https://elsewhere"},
    ]
}
PS = {
    "models": [
        {
            "name": "llama3:8b",
            "size": 6 * GB,
            "size_vram": 3 * GB,
            "context_length": 8192,
            "expires_at": "2026-01-01T00:00:00Z",
        }
    ]
}
NONE_LOADED = {"models": []}
NOW = 1000.0


def node_with(tags=TAGS, ps=PS, now=NOW):
    state = NodeState(0, "desk")
    update(state, read_facts(tags, ps), now)
    return state


def test_models_are_known_by_their_full_names_with_what_is_loaded():
    models = node_with().models
    assert set(models) == {"llama3:8b", "phi:latest", "nomic-embed-text:latest"}
    loaded = models["llama3:8b"]
    assert (loaded.resident, loaded.loaded_bytes, loaded.vram_bytes) == (True, 6 * GB, 3 * GB)
    assert (loaded.loaded_context, loaded.expires_at) == (8192, "2026-01-01T00:00:00Z")
    assert (models["phi:latest"].resident, models["phi:latest"].size_bytes) == (False, 2 * GB)
    assert models["nomic-embed-text:latest"].capabilities == {"embedding"}
    assert models["phi:latest"].capabilities is None


def test_what_is_unloaded_takes_no_memory():
    state = node_with()
    update(state, read_facts(TAGS, NONE_LOADED), NOW + 60)
    model = state.models["llama3:8b"]
    assert (model.resident, model.loaded_bytes, model.vram_bytes, model.loaded_context) == (False, 0, 0, None)
    assert model.expires_at == ""


def test_what_was_learned_of_a_model_outlives_a_listing():
    state = node_with()
    rates = state.models["llama3:8b"].rates
    update(state, read_facts(TAGS, PS), NOW + 60)
    assert state.models["llama3:8b"].rates is rates


def test_a_model_that_is_gone_is_forgotten_once_no_call_has_it():
    state = node_with()
    state.claim("phi:latest", NOW + 1)
    update(state, read_facts({"models": []}, NONE_LOADED), NOW)
    assert set(state.models) == {"phi:latest"}
    state.release("phi:latest", NOW + 1)
    update(state, read_facts({"models": []}, NONE_LOADED), NOW)
    assert state.models == {}


def test_an_old_server_without_ps_leaves_what_calls_have_seen():
    state = node_with(ps={})
    assert not state.models["llama3:8b"].resident
    state.models["llama3:8b"].resident = True
    update(state, read_facts(TAGS, {}), NOW + 60)
    assert state.models["llama3:8b"].resident


@pytest.mark.parametrize("truth", [True, False])
def test_what_a_call_saw_goes_before_what_a_node_says_for_a_while(*, truth):
    state = node_with(ps=NONE_LOADED if truth else PS)
    model = state.models["llama3:8b"]
    model.resident, model.seen_at = truth, NOW
    lie = read_facts(TAGS, NONE_LOADED if truth else PS)
    update(state, lie, NOW + SEEN_COUNTS - 0.1)
    assert model.resident is truth
    update(state, lie, NOW + SEEN_COUNTS + 0.1)
    assert model.resident is not truth


def test_a_model_that_is_being_loaded_is_not_resident_whatever_is_listed():
    state = node_with(ps=NONE_LOADED)
    model = state.models["llama3:8b"]
    model.loading_until = NOW + 10
    update(state, read_facts(TAGS, PS), NOW + 5)
    assert not model.resident
    update(state, read_facts(TAGS, PS), NOW + 11)
    assert model.resident, "a load that nobody has waited for to the end is over some time"


def test_a_refusal_ends():
    state = node_with()
    model = state.models["phi:latest"]
    model.refused_until, model.refused_why = NOW + 60, "too big"
    update(state, read_facts(TAGS, PS), NOW + 59)
    assert (model.refused_until, model.refused_why) == (NOW + 60, "too big")
    update(state, read_facts(TAGS, PS), NOW + 60)
    assert (model.refused_until, model.refused_why) == (0.0, "")


def test_digests_tell_models_from_their_successors():
    assert read_facts(TAGS, PS).digests == {"llama3:8b": "aa", "phi:latest": "bb"}


@pytest.mark.parametrize(
    ("size", "vram", "share"), [(100, 100, 1.0), (100, 0, 0.0), (100, 40, 0.4), (1, 9, 1.0), (0, 0, 0)]
)
def test_the_part_in_video_memory(size, vram, share):
    assert LoadedModel(size, vram, None, "").vram_share == share


def test_show_tells_capabilities_and_the_trained_context():
    model = ModelState("m")
    read_shown(
        model,
        {
            "capabilities": ["completion", "tools", 3],
            "model_info": {"general.architecture": "llama", "llama.context_length": 131072},
        },
    )
    assert (model.capabilities, model.context_length) == ({"completion", "tools"}, 131072)
    read_shown(model, {})
    assert (model.capabilities, model.context_length) == ({"completion", "tools"}, 131072)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("name", "model", "size", "size_vram", "digest", "details", "context_length", "expires_at"), anything
    ),
)
listings = st.dictionaries(st.sampled_from(["models", "error"]), st.lists(entries | anything, max_size=4) | anything)
shown = st.dictionaries(st.sampled_from(["capabilities", "model_info", "details"]), anything)


@settings(deadline=None)
@given(tags=listings, ps=listings, show=shown)
def test_nonsense_is_left_out(tags, ps, show):
    state = node_with(tags, ps)
    for name, model in state.models.items():
        assert name == model.name
        assert model.loaded_bytes >= 0
        assert model.vram_bytes >= 0
        read_shown(model, show)
    assert (
        len(state.models) <= len(tags.get("models") or []) if isinstance(tags.get("models"), list) else not state.models
    )


def test_numbers_that_no_machine_has_are_left_out():
    entry = {"name": "m", "size": 10**400, "size_vram": 10**400, "context_length": 10**400}
    state = node_with({"models": [entry]}, {"models": [entry]})
    model = state.models["m:latest"]
    assert (model.size_bytes, model.loaded_bytes, model.vram_bytes, model.loaded_context) == (None, 0, 0, None)
    assert LoadedModel(0, 0, None, "").vram_share == 0.0


def place(*addresses, port=11434, path="", host=""):
    return ServerAddress(frozenset(addresses), port, path, host)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (place(HERE), place(HERE), True),
        (place(HERE), place(HERE, port=11435), False),
        (place("10.0.0.4"), place("10.0.0.4"), True),
        (place("10.0.0.4"), place("10.0.0.5"), False),
        (place("10.0.0.4", "fd00::4"), place("10.0.0.4"), True),
        (place("fd00::4", "fe80::4"), place("fd00::4"), True),
        (place("10.0.0.4", "10.0.0.5"), place("10.0.0.4"), False),
        (place("10.0.0.4", "10.0.0.5"), place("10.0.0.5", "10.0.0.4"), True),
        (place("10.0.0.4", port=443, host="a.lan"), place("10.0.0.4", port=443, host="b.lan"), False),
        (place("10.0.0.4", path="/a"), place("10.0.0.4", path="/b"), False),
        (place(), place(), False),
    ],
)
def test_which_two_are_one_server(one, other, same):
    assert one.is_same_server(other) is same
    assert other.is_same_server(one) is same


def test_a_server_is_used_under_the_name_that_came_first():
    places = {7: place("10.0.0.4"), 3: place(HERE), 5: place("10.0.0.4"), 9: None, 8: place(HERE), 4: None}
    assert twins(places) == {5: 7, 8: 3}


async def test_names_of_this_machine_are_one():
    own = own_addresses()
    assert "127.0.0.1" in own
    found = [await place_of(f"http://{host}:11434", own) for host in ("localhost", "127.0.0.1", "[::1]", "127.0.0.9")]
    assert {one.addresses for one in found} == {frozenset({HERE})}
    assert await place_of("http://[::ffff:127.0.0.1]:11434/", own) == place(HERE)


async def test_where_an_address_leads_to():
    assert await place_of("http://10.1.2.3:11434/ollama/", []) == place("10.1.2.3", path="/ollama")
    assert await place_of("https://10.1.2.3", []) == place("10.1.2.3", port=443, host="10.1.2.3")
    assert await place_of("http://no-such-host.invalid:11434", []) is None
    assert await place_of("http://10.1.2.3:99999", []) is None
