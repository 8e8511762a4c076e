"""Nodes and calls for the tests of the picker and its index."""

from __future__ import annotations

from hypothesis import strategies as st

from synaptic.backends.pool.learned.rates import Rates
from synaptic.backends.pool.node.state import CallShape, ModelState, NodeState

NAMES = ("m", "x", "y")


def node(
    key,
    *,
    speed=20.0,
    limit=1,
    ends=(),
    resident=True,
    size=None,
    context=None,
    capabilities=None,
    memory=None,
    others=None,
) -> NodeState:
    """Return a node that has the model "m", which makes ``speed`` tokens a second and reads ten times as many.

    ``ends`` are the calls that it has; ``others`` are resident models with their bytes.
    """
    rates = Rates(prompt_rate=10.0 * speed, output_rate=float(speed), samples=5 if speed else 0)
    state = NodeState(key, f"node-{key}", limit=limit, cap=limit, memory_bytes=memory)
    state.models["m"] = ModelState(
        "m", size, resident=resident, loaded_context=context, capabilities=capabilities, rates=rates
    )
    for name, loaded in (others or {}).items():
        state.models[name] = ModelState(name, loaded, resident=True, loaded_bytes=loaded, rates=rates)
    for end in ends:
        state.claim("m", end)
    return state


@st.composite
def model_states(draw, name) -> ModelState:
    speed = draw(st.sampled_from([0, 1, 5, 5.1, 20, 80]))
    resident = draw(st.booleans())
    return ModelState(
        name,
        size_bytes=draw(st.sampled_from([None, 10**9, 5 * 10**9, 40 * 10**9])),
        capabilities=draw(st.sampled_from([None, frozenset({"completion"}), frozenset({"completion", "tools"})])),
        resident=resident,
        loaded_bytes=10**9 if resident else 0,
        loaded_context=draw(st.sampled_from([None, 2048, 8192])) if resident else None,
        loading_until=0.0 if resident else draw(st.sampled_from([0.0, 0.0, 995.0, 1005.0])),
        refused_until=draw(st.sampled_from([0.0, 0.0, 0.0, 990.0, 1010.0])),
        rates=Rates(prompt_rate=10.0 * speed, output_rate=float(speed), samples=5 if speed else 0),
    )


@st.composite
def nodes(draw, key) -> NodeState:
    limit = draw(st.integers(1, 4))
    state = NodeState(
        key,
        f"node-{key}",
        limit=limit,
        cap=draw(st.integers(0, limit)),
        trust=draw(st.sampled_from([1.0, 1.0, 0.3])),
        memory_bytes=draw(st.sampled_from([None, None, 8 * 10**9])),
    )
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        state.models[name] = draw(model_states(name))
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=limit)):
        if name in state.models:
            state.claim(name, draw(st.sampled_from([900.0, 999.9, 1001.0, 1030.0])))
    return state


@st.composite
def pools(draw, most=12) -> list[NodeState]:
    return [draw(nodes(key)) for key in range(draw(st.integers(0, most)))]


@st.composite
def shapes(draw) -> CallShape:
    return CallShape(
        draw(st.sampled_from(NAMES)),
        prompt_tokens=draw(st.integers(0, 5000)),
        output_tokens=draw(st.integers(1, 2000)),
        needs=draw(st.sampled_from([frozenset(), frozenset(), frozenset({"tools"})])),
        num_ctx=draw(st.sampled_from([None, 2048, 8192])),
        cached=draw(st.dictionaries(st.integers(0, 11), st.sampled_from([128, 1280]), max_size=3)),
        tried=draw(st.frozensets(st.integers(0, 11), max_size=3)),
    )
