"""What graph theory says of a pipeline's steps: circles, how wide it is, which arrows are implied. By networkx.

Runs never come here: the executor schedules on plain dicts. networkx takes 0.2 s to import, so it is loaded when the
first of these functions is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import lazy_loader

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Mapping, Sequence

    import networkx as nx

    from synaptic.pipeline.plan_rows import PlannedStep
else:
    nx = lazy_loader.load("networkx")

_FIELDS: Final = (
    "kind",
    "work",
    "what",
    "agent",
    "model",
    "stage",
    "rank",
    "times",
    "critical",
    "conditional",
    "on_demand",
)


def circles(needs: Mapping[str, Iterable[str]]) -> list[tuple[str, ...]]:
    """Return one circle for each set of steps that wait for each other (a strongly connected component).

    Args:
        needs: For each step those that it waits for; all of them are keys.

    Returns:
        In the order of ``needs``: the steps of one circle through the component's first step, which is repeated at
        the end. Each step of it waits for the one after it.
    """
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_edges_from((name, after) for name, following in needs.items() for after in following)
    order = {name: place for place, name in enumerate(needs)}
    found = []
    for component in nx.strongly_connected_components(graph):
        first = min(component, key=order.__getitem__)
        if len(component) > 1 or graph.has_edge(first, first):
            inside = graph.subgraph(component)
            ways = (nx.shortest_path(inside, after, first) for after in graph[first] if after in component)
            found.append((first, *min(ways, key=len)))
    return sorted(found, key=lambda circle: order[circle[0]])


def layers(names: Iterable[str], edges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return for each name the length of the longest way to it. ``edges`` must be free of circles."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from(edges)
    return {name: layer for layer, generation in enumerate(nx.topological_generations(graph)) for name in generation}


def leads_to(start: str, goal: str, edges: Iterable[tuple[str, str]]) -> bool:
    """Return whether a way along ``edges`` leads from ``start`` to ``goal``."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from((start, goal))
    graph.add_edges_from(edges)
    return bool(nx.has_path(graph, start, goal))


def implied(edges: Collection[tuple[str, str]], firm: Container[str]) -> set[tuple[str, str]]:
    """Return the edges that a longer way says already; with all steps firm, what a transitive reduction leaves out.

    Args:
        edges: From what is needed to what needs it; free of circles.
        firm: The steps that a way may lead through: they end only after all that they need.
    """
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(name for edge in edges for name in edge)
    graph.add_edges_from(edge for edge in edges if edge[1] in firm)
    ways = nx.transitive_closure_dag(graph)
    needs: dict[str, list[str]] = {}
    for source, target in edges:
        needs.setdefault(target, []).append(source)
    return {(source, target) for source, target in edges if any(ways.has_edge(source, via) for via in needs[target])}


def widest(weights: Mapping[str, int], needs: Mapping[str, Iterable[str]]) -> int:
    """Return the weight of the heaviest antichain: of steps of which none waits for another, however far around.

    By Dilworth's theorem ("A decomposition theorem for partially ordered sets", 1950) that is the least number of
    chains that cover every step as often as it weighs: all weights, less the largest flow through the pairs of which
    one waits for the other (Fulkerson, "Note on Dilworth's decomposition theorem", 1956). ``needs`` has for each step
    those that it waits for, free of circles.
    """
    order: nx.DiGraph[str] = nx.DiGraph()
    order.add_nodes_from(weights)
    order.add_edges_from((need, name) for name, after in needs.items() for need in after)
    flow: nx.DiGraph[Any] = nx.DiGraph()
    flow.add_nodes_from(("source", "sink"))
    for name, weight in weights.items():
        flow.add_edge("source", ("before", name), capacity=weight)
        flow.add_edge(("after", name), "sink", capacity=weight)
    flow.add_edges_from(
        (("before", first), ("after", later)) for first, later in nx.transitive_closure_dag(order).edges
    )
    return sum(weights.values()) - int(nx.maximum_flow_value(flow, "source", "sink"))


def plan_graph(rows: Sequence[PlannedStep]) -> nx.DiGraph[str]:
    """Return the steps as a graph whose edges point from what is needed to what needs it.

    Nodes are paths (``refine.judge``) with the attributes of the plan's rows; ``inside`` is the path of the loop or the
    used pipeline around a step, if there is one. Edges have a ``kind``: ``need``, or ``fallback`` for the step that
    takes over after a failure; ``options`` are the labels of a choice that let the target run.
    """
    graph: nx.DiGraph[str] = nx.DiGraph()
    for row in rows:
        around = row.path.rpartition(".")[0]
        graph.add_node(row.path, inside=around or None, **{name: getattr(row, name) for name in _FIELDS})
    for row in rows:
        for need in row.needs:
            extra: dict[str, Any] = {"options": list(row.gates[need])} if need in row.gates else {}
            graph.add_edge(need, row.path, kind="need", **extra)
        if row.fallback is not None:
            graph.add_edge(row.path, row.fallback, kind="fallback")
    return graph


def node_link(graph: nx.DiGraph[str]) -> dict[str, Any]:
    """Return a graph as networkx's node-link data; ``networkx.node_link_graph(data, edges="edges")`` reads it back."""
    data: dict[str, Any] = nx.node_link_data(graph, edges="edges")
    return data
