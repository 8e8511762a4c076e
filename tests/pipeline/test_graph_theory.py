"""Graph theory on a pipeline's steps: against brute force, and what users get."""

import json
import subprocess
import sys
from itertools import combinations

import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st

from synaptic import Session, Settings
from synaptic.pipeline.graph_theory import circles, implied, layers, leads_to, widest
from synaptic.pipeline.loader import Pipeline

TEXT = """version: 1
name: g
inputs: {query: {}}
steps:
  a: {agent: planner, prompt: p}
  b: {agent: editor, prompt: "{{ steps.a.questions }}"}
  c: {agent: editor, prompt: "{{ steps.a.questions }} {{ steps.b }}", on_error: {use: d}}
  d: {agent: editor, prompt: "again"}
  refine:
    repeat:
      max: 2
      steps:
        draft: {agent: editor, prompt: "{{ steps.c }}"}
        polish: {agent: editor, prompt: "{{ steps.draft }}"}
result: "{{ steps.refine.polish }}"
"""


@st.composite
def orders(draw: st.DrawFn) -> dict[str, list[str]]:
    """Steps with needs, without a circle."""
    count = draw(st.integers(1, 7))
    return {
        str(n): draw(st.lists(st.sampled_from([str(m) for m in range(n)]), unique=True)) if n else []
        for n in range(count)
    }


def graph_of(needs):
    graph = nx.DiGraph()
    graph.add_nodes_from(needs)
    graph.add_edges_from((need, name) for name, after in needs.items() for need in after)
    return graph


@given(orders(), st.data())
@settings(deadline=None)
def test_the_widest_set_is_the_heaviest_of_all_sets_in_which_no_step_waits_for_another(needs, data):
    weights = {name: data.draw(st.integers(0, 4)) for name in needs}
    closure = nx.transitive_closure_dag(graph_of(needs))
    free = [
        chosen
        for size in range(len(needs) + 1)
        for chosen in combinations(needs, size)
        if not any(closure.has_edge(one, other) for one in chosen for other in chosen)
    ]

    assert widest(weights, needs) == max(sum(weights[name] for name in chosen) for chosen in free)


@given(orders())
@settings(deadline=None)
def test_implied_edges_are_what_a_transitive_reduction_leaves_out(needs):
    graph = graph_of(needs)

    assert implied(list(graph.edges), set(needs)) == set(graph.edges) - set(nx.transitive_reduction(graph).edges)


def test_an_edge_beside_a_way_through_a_step_that_may_be_skipped_is_not_implied():
    edges = [("a", "b"), ("b", "c"), ("a", "c")]

    assert implied(edges, {"a", "b", "c"}) == {("a", "c")}
    assert implied(edges, {"a", "c"}) == set()


@given(orders())
@settings(deadline=None)
def test_layers_are_the_longest_way_to_each_step(needs):
    found = layers(needs, graph_of(needs).edges)

    assert found == {name: max((found[need] + 1 for need in after), default=0) for name, after in needs.items()}


def test_each_set_of_steps_that_wait_for_each_other_is_told_once():
    knot = {
        "a": ("b", "c"),
        "b": ("a",),
        "c": ("b", "a"),
        "d": ("a", "e"),
        "e": ("f",),
        "f": ("e",),
        "g": ("g",),
        "h": (),
    }

    assert circles(knot) == [("a", "b", "a"), ("e", "f", "e"), ("g", "g")]


def test_a_chain_of_ten_thousand_steps_is_no_circle_and_its_end_may_be_one():
    needs = {str(i): (str(i + 1),) for i in range(10_000)} | {"10000": ()}

    assert circles(needs) == []
    assert len(circles({**needs, "10000": ("0",)})[0]) == 10_002


def test_a_way_leads_along_edges_only():
    assert leads_to("a", "c", [("a", "b"), ("b", "c")])
    assert not leads_to("c", "a", [("a", "b"), ("b", "c")])


async def test_a_plan_is_a_graph_of_networkx():
    async with Session(Settings(backend="scripted")) as session:
        graph = (await session.plan("why", pipeline=Pipeline.parse(TEXT))).graph()

    assert next(iter(nx.topological_sort(graph))) == "a"
    assert nx.has_path(graph, "a", "refine")
    assert graph.nodes["refine.draft"]["inside"] == "refine"
    assert graph.nodes["a"]["agent"] == "planner"
    assert {kind for _, _, kind in graph.edges(data="kind")} == {"need", "fallback"}
    assert graph.edges["c", "d"]["kind"] == "fallback"
    assert graph.edges["refine.draft", "refine.polish"]["kind"] == "need"
    assert all(graph.nodes[path]["kind"] for path in graph)


def test_the_json_of_a_pipeline_reads_back_as_the_graph(tmp_path):
    file = tmp_path / "g.yaml"
    file.write_text(TEXT)
    shown = subprocess.run(
        [sys.executable, "-m", "synaptic", "pipelines", "graph", str(file), "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    graph = nx.node_link_graph(json.loads(shown), edges="edges")

    assert nx.is_directed_acyclic_graph(graph)
    assert set(graph.predecessors("c")) == {"a", "b"}
    assert set(graph) == {"a", "b", "c", "d", "refine", "refine.draft", "refine.polish"}


def test_a_plan_and_a_run_do_without_networkx():
    code = """
import asyncio, sys
from synaptic import Session, Settings
async def main():
    async with Session(Settings(backend="scripted")) as session:
        (await session.plan("why", pipeline="research")).to_dict()
        await session.run("why", pipeline="research")
asyncio.run(main())
sys.exit(len([name for name in sys.modules if name.startswith("networkx.")]))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
