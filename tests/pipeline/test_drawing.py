"""Drawings: one diagram in four languages, each of which a reader of that language can read."""

import html
import re
import xml.etree.ElementTree as ET
from itertools import combinations, pairwise

import pydot
import pytest
from compiled_graphs import compiled, everything, loop, step
from hypothesis import given, settings
from hypothesis import strategies as st

from synaptic.pipeline.drawing import FORMATS, RESULT, Chart, Diagram, Edge, Node, diagram, draw, layered
from synaptic.pipeline.drawing.labels import LABEL_HEIGHT, label_width
from synaptic.pipeline.drawing.layout import ArrowRoute, Box, Layout, lay_out, spread
from synaptic.pipeline.drawing.markup import dot, mermaid
from synaptic.pipeline.drawing.svg import svg
from synaptic.pipeline.drawing.text import text
from synaptic.pipeline.templates.expressions import Expression

SVG = "{http://www.w3.org/2000/svg}"
STEPS = {
    *("plan", "route", "look_up", "tell", "research", "refine", "refine.draft", "refine.rate", "again", "reuse"),
    *("reuse.look", "reuse.sum_up", "race", "careful", "plain", "write", RESULT),
}
EVERYTHING = diagram(everything())
NASTY = '"]; } --> <b>& end %% \\" \\ #35; `x` 1. *é* 日本 \x1b[31m \u2028\n click n0 "javascript:alert(1)"'


def nasty() -> Diagram:
    """Return a diagram in which every text tries to be something else."""
    nodes = tuple(Node(path=path, name=NASTY, shape="agent", lines=(NASTY, "")) for path in ("a", "b", 'c"]\\'))
    inner = Chart(nodes[2:], (), {nodes[2].path: 0})
    around = Node(path="d", name=NASTY, shape="repeat", lines=(NASTY,), inside=inner)
    edges = (Edge(source="a", target="b", label=NASTY), Edge(source="b", target="d", label=NASTY, fallback=True))
    return Diagram(NASTY, NASTY, Chart((*nodes[:2], around), edges, {"a": 0, "b": 1, "d": 2}))


def walk(scope: Chart) -> list[Node]:
    return [found for node in scope.nodes for found in (node, *(walk(node.inside) if node.inside else ()))]


# -- the diagram -----------------------------------------------------------------------------------------------------


def test_every_step_is_there_once_with_what_is_inside_it():
    nodes = walk(EVERYTHING.scope)

    assert sorted(node.path for node in nodes) == sorted(STEPS)
    shapes = {node.path: node.shape for node in nodes}
    assert (shapes["route"], shapes["look_up"], shapes["reuse"]) == ("choose", "tool", "pipeline")
    assert (shapes["refine"], shapes["again"], shapes[RESULT]) == ("repeat", "agent", "result")


def test_boxes_say_what_they_do_and_how_often():
    lines = {node.path: node.lines for node in walk(EVERYTHING.scope)}

    assert lines["plan"] == ("planner",)
    assert lines["research"] == ("researcher ×N", "left out on error")
    assert lines["refine"] == ("loop ≤ 4", "keep last", "when inputs.rounds > 0")
    assert lines["again"] == ("editor ≤ 2", "keep last")
    assert lines["tell"] == ("editor × 3, best",)
    assert lines["route"] == ("choose: classifier",)
    assert lines["look_up"] == ("tool fetch",)
    assert lines["reuse"] == ("pipeline inner",)
    assert lines["careful"] == ("editor", "a person confirms the output")


def test_arrows_say_why():
    edges = {(edge.source, edge.target): edge for edge in EVERYTHING.scope.edges}

    assert edges["route", "look_up"].label == "fact"
    assert edges["plan", "research"].label == "items as they come"
    assert edges["again", "race"].label == "first"
    assert (edges["careful", "plain"].label, edges["careful", "plain"].fallback) == ("on error", True)
    assert ("write", RESULT) in edges
    assert not any(edge.fallback for pair, edge in edges.items() if pair != ("careful", "plain"))


def test_the_longest_chain_is_one_chain_down_to_the_result():
    critical = [node for node in EVERYTHING.scope.nodes if node.critical]
    chain = [(edge.source, edge.target) for edge in EVERYTHING.scope.edges if edge.critical]

    assert [node.path for node in critical] == ["plan", "research", "refine", "careful", "write", RESULT]
    assert chain == list(pairwise(node.path for node in critical))
    assert {node.path for node in walk(EVERYTHING.scope) if node.critical} >= {"refine.draft", "refine.rate"}


def test_every_arrow_leads_down_and_a_fallback_stands_below_what_it_replaces():
    layers = EVERYTHING.scope.layers

    assert all(layers[edge.source] < layers[edge.target] for edge in EVERYTHING.scope.edges)
    assert layers["plain"] > layers["careful"]


def test_a_fallback_that_the_step_waits_for_anyway_does_not_bend_the_layers():
    edges = [Edge(source="a", target="b"), Edge(source="b", target="a", fallback=True)]

    assert layered(["a", "b"], edges) == {"a": 0, "b": 1}


CONDITION = " and ".join(f"inputs.rounds > {number}" for number in range(9))


@pytest.mark.parametrize("form", ["text", "svg", "mermaid", "dot"])
@pytest.mark.parametrize("inside", [None, "steps", "itself"])
def test_a_long_condition_is_whole_on_as_many_lines_as_it_needs(form: str, inside: str | None):
    when = Expression.compile(CONDITION.replace(" and ", " and\n  "))
    more = {"repeat": LOOPS[inside]()} if inside else {}
    picture = draw(compiled(step("a", when=when, **more)), form)

    assert f"when {CONDITION}" in words_of(picture)


def test_the_lines_of_a_long_condition_are_about_as_long_as_each_other():
    label = Node(path="a", name="a", shape="agent", lines=(f"when {CONDITION}", "", "short")).label

    lengths = [len(line) for line in label[1:-2]]
    assert label[-2:] == ("", "short")
    assert max(lengths) <= 48
    assert min(lengths) > max(lengths) / 2


def test_a_condition_without_an_end_is_cut_in_the_end():
    when = Expression.compile(" and ".join(["inputs.query != 'a rather long text'"] * 30))
    (node, _) = diagram(compiled(step("a", when=when))).scope.nodes

    assert len(node.lines[1]) < 420
    assert node.lines[1].endswith("…")


# -- loops -----------------------------------------------------------------------------------------------------------

SCORED = Expression.compile("steps.rate.score")
LOOPS = {
    "steps": lambda **more: loop(step("draft"), step("rate", "draft"), **more),
    "one step": lambda **more: loop(step("draft"), **more),
    "itself": lambda **more: loop(step("a"), itself=True, **more),
    "a loop in it": lambda **more: loop(step("draft", repeat=loop(step("x"))), step("rate", "draft"), **more),
}
WAYS_BACK = {
    "text": r"↺ next round",
    "svg": r'<path class="again" data-loop="a" ',
    "mermaid": r'\bn\d+ -->\|"next round"\| n\d+',
    "dot": r'"[a-z.]+" -> "[a-z.]+" \[label="next round"',
}


def words_of(picture: str) -> str:
    """Return the words of a drawing in any format, without what is around them."""
    bare = re.sub(r"#(\d+);", lambda match: chr(int(match[1])), picture.replace("<br/>", " ").replace("\\n", " "))
    bare = html.unescape(re.sub(r"</?(?:text|rect|g|path|title|polygon|tspan)\b[^>]*>", " ", bare))
    return " ".join(re.sub(r"[│┃]", " ", bare).split())


@pytest.mark.parametrize("form", WAYS_BACK)
@pytest.mark.parametrize("inside", LOOPS)
def test_a_loop_says_what_ends_it_and_what_it_keeps_and_shows_its_way_back(form: str, inside: str):
    until = Expression.compile("steps.rate.score >= 0.9")
    repeat = LOOPS[inside](until=until, score=SCORED, plateau=2, keep="best")

    picture = draw(compiled(step("a", repeat=repeat)), form)

    said = words_of(picture)
    assert (
        "until steps.rate.score >= 0.9 or until 2 rounds without a better score keep best by steps.rate.score" in said
    )
    assert len(re.findall(WAYS_BACK[form], picture)) == (2 if inside == "a loop in it" and form != "svg" else 1)
    assert not re.search(WAYS_BACK[form], draw(compiled(step("a")), form))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, ("keep last",)),
        ({"plateau": 1, "score": SCORED}, ("until 1 round without a better score", "keep last by steps.rate.score")),
        ({"until": SCORED}, ("until steps.rate.score", "keep last")),
    ],
)
def test_what_is_not_said_of_a_loop_is_not_drawn(more: dict, said: tuple[str, ...]):
    (node, _) = diagram(compiled(step("a", repeat=loop(step("b"), **more)))).scope.nodes

    assert node.lines[1:] == said


# -- text ------------------------------------------------------------------------------------------------------------


def test_text_is_a_column_of_stages():
    picture = draw(
        compiled(step("plan"), step("left", "plan"), step("right", "plan"), step("write", "left", "right")), "text"
    )

    assert picture.splitlines()[:9] == [
        "demo",
        "",
        "● plan  editor",
        "▼",
        "┬ ● left  editor  ← plan",
        "└ ○ right  editor  ← plan",
        "▼",
        "● write  editor  ← left, right",
        "▼",
    ]


def test_text_shows_a_loop_inside_its_step():
    lines = draw(compiled(step("a", repeat=loop(step("b"), step("c", "b")))), "text").splitlines()

    head = "● a  loop ≤ 3  keep last"
    assert lines[2:7] == [head, "│   ┃ ● b  editor", "│   ┃ ▼", "│   ┃ ● c  editor  ← b", "│   ┃ ↺ next round"]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_text_fits_its_width_and_names_every_step(width: int):
    lines = text(EVERYTHING, width).splitlines()

    assert max(map(len, lines)) <= width
    for path in STEPS - {RESULT}:
        name = path.rpartition(".")[2]
        assert sum(bool(re.search(rf"[●○] {name}\b", line)) for line in lines) >= 1
    whole = " ".join(" ".join(lines).replace("│", " ").replace("┃", " ").split())
    assert "takes over if careful fails" in whole
    assert "← the first of again, reuse" in whole
    assert "← route (fact)" in whole


# -- Mermaid ---------------------------------------------------------------------------------------------------------

_LABEL = r'"(?:[^"#]|#\d+;)*"'
MERMAID_LINES = [
    r"flowchart TD",
    r"accTitle: [^\"#;{}<>]*",
    r"accDescr: [^\"#;{}<>]*",
    rf"n\d+(?:\({_LABEL}\)|\{{\{{{_LABEL}\}}\}}|\[\[{_LABEL}\]\]|\(\[{_LABEL}\]\))",
    rf"subgraph n\d+\[{_LABEL}\]",
    r"end",
    r"direction TB",
    rf"n\d+t\[{_LABEL}\]",
    r"n\d+t ~~~ n\d+",
    rf"n\d+ -\.?->(?:\|{_LABEL}\|)? n\d+",
    r"classDef \w+ [\w:,. -]+",
    r"class n\d+t?(?:,n\d+t?)* \w+",
    r"linkStyle \d+(?:,\d+)* stroke-width:3px",
]


@pytest.mark.parametrize("picture", [EVERYTHING, nasty()], ids=["everything", "nasty"])
def test_every_line_of_mermaid_is_a_statement_and_labels_stay_labels(picture: Diagram):
    lines = [line.strip() for line in mermaid(picture).splitlines()]

    assert [line for line in lines if not any(re.fullmatch(form, line) for form in MERMAID_LINES)] == []
    assert sum(line.startswith("subgraph") for line in lines) == lines.count("end")
    nodes = {line.split('"')[0].strip("([{ ").removeprefix("subgraph ").rstrip("([{") for line in lines if '"' in line}
    used = {name for line in lines if "->" in line for name in re.findall(r"\bn\d+\b", re.sub(_LABEL, "", line))}
    assert used <= nodes


def test_mermaid_shows_kinds_choices_and_fallbacks():
    picture = mermaid(EVERYTHING)

    assert re.search(r'n\d+\{\{"route<br/>choose: classifier"\}\}', picture)
    assert re.search(r'n\d+\[\["look_up<br/>tool fetch"\]\]', picture)
    assert re.search(r'subgraph (n\d+)\["refine: loop ≤ 4"\]\n\s*direction TB\n\s*\1t\["keep last<br/>when', picture)
    assert re.search(r'n\d+ -->\|"story"\| n\d+', picture)
    assert re.search(r'n\d+ -\.->\|"on error"\| n\d+', picture)
    assert "linkStyle" in picture


def test_thick_arrows_of_mermaid_are_those_of_the_longest_chain():
    lines = [line.strip() for line in mermaid(EVERYTHING).splitlines()]
    boxes = [re.match(r'(?:subgraph )?(n\d+)\W+"([a-z_]+)', line) for line in lines if "->" not in line]
    names = {match[1]: match[2] for match in boxes if match}
    # Mermaid counts every link, also one that is not seen.
    arrows = [re.sub(_LABEL, "", line) for line in lines if "->" in line or "~~~" in line]
    (style,) = [line for line in lines if line.startswith("linkStyle")]
    numbers = [int(number) for number in style.split()[1].split(",")]

    thick = {tuple(names[end] for end in re.findall(r"n\d+", arrows[number])) for number in numbers}

    assert ("plan", "research") in thick
    assert ("draft", "rate") in thick
    assert ("plan", "again") not in thick


def test_mermaid_keeps_underscores_in_words_only():
    (label,) = re.findall(_LABEL, mermaid(diagram(compiled(step("key_facts", agent="editor")))))[:1]

    assert label == '"key_facts<br/>editor"'
    assert "#95;x#95;" in mermaid(Diagram("a", "", Chart((Node(path="a", name="_x_", shape="agent"),), (), {"a": 0})))


# -- DOT -------------------------------------------------------------------------------------------------------------


by_a_parser = pytest.mark.filterwarnings("ignore::DeprecationWarning:pydot")  # of the parser's own libraries


def dot_names(graph: pydot.Dot) -> set[str]:
    names = {node.get_name().strip('"') for node in graph.get_nodes()} - {"node", "edge", "graph"}
    for cluster in graph.get_subgraphs():
        names |= {cluster.get_name().strip('"').removeprefix("cluster_"), *dot_names(cluster)}
    return names


@by_a_parser
def test_dot_is_read_by_a_parser_with_every_step_in_its_cluster():
    (graph,) = pydot.graph_from_dot_data(dot(EVERYTHING))

    assert dot_names(graph) == STEPS
    clusters = {cluster.get_name().strip('"'): dot_names(cluster) for cluster in graph.get_subgraphs()}
    assert clusters == {
        "cluster_refine": {"refine.draft", "refine.rate"},
        "cluster_reuse": {"reuse.look", "reuse.sum_up"},
    }


@by_a_parser
def test_arrows_of_dot_end_at_clusters_and_fallbacks_are_dashed():
    (graph,) = pydot.graph_from_dot_data(dot(EVERYTHING))
    edges = {(edge.get_source().strip('"'), edge.get_destination().strip('"')): edge for edge in graph.get_edges()}

    assert edges["research", "refine.draft"].get("lhead").strip('"') == "cluster_refine"
    assert edges["refine.rate", "careful"].get("ltail").strip('"') == "cluster_refine"
    assert edges["careful", "plain"].get("style") == "dashed"
    assert edges["route", "tell"].get("label").strip('"') == "story"


@by_a_parser
def test_nothing_in_a_name_ends_a_string_of_dot():
    (graph,) = pydot.graph_from_dot_data(dot(nasty()))

    assert {node.get_name() for node in graph.get_nodes()} == {'"a"', '"b"', "graph", "node", "edge"}
    (cluster,) = graph.get_subgraphs()
    assert len(cluster.get_nodes()) == 2  # with the attributes of the cluster
    assert len(graph.get_edges()) == 2
    label = graph.get_node('"a"')[0].get("label")
    assert label.startswith('"\\"]; } --> <b>& end %% \\\\\\" \\\\ #35;')


# -- SVG -------------------------------------------------------------------------------------------------------------


def boxes_of(layout: Layout) -> list[Box]:
    return [found for box in layout.boxes for found in (box, *(boxes_of(box.inside) if box.inside else ()))]


def overlap(one: Box, other: Box) -> bool:
    apart_x = one.x + one.width <= other.x or other.x + other.width <= one.x
    apart_y = one.y + one.height <= other.y or other.y + other.height <= one.y
    return not (apart_x or apart_y)


def label_box(route: ArrowRoute) -> Box:
    """Return the ground of a label as if it were a box."""
    (x, y), width = route.label_at, label_width(route.edge)
    node = Node(path=route.edge.label, name="", shape="agent")
    return Box(node=node, x=x - width / 2, y=y - LABEL_HEIGHT / 2, width=width, height=LABEL_HEIGHT)


def check_labels(layout: Layout, left: float) -> None:
    """Each label on its own arrow, none over another one, over a box or outside the scope."""
    labelled = [route for route in layout.routes if route.edge.label]
    labels = [label_box(route) for route in labelled]
    for one, other in combinations(labels, 2):
        assert not overlap(one, other), (one.node.path, other.node.path)
    for route, label in zip(labelled, labels, strict=True):
        assert not any(overlap(label, box) for box in layout.boxes)
        assert left - 0.01 <= label.x
        assert label.x + label.width <= left + layout.width + 0.01
        (x1, y1), (x2, y2) = route.points[-3:-1]
        curve = [(t / 200, (t / 200) ** 2 * (3 - t / 100)) for t in range(201)]
        near = min(
            curve, key=lambda at: abs(y1 + (y2 - y1) * (1.5 * at[0] * (1 - at[0]) + at[0] ** 3) - route.label_at[1])
        )
        assert abs(x1 + (x2 - x1) * near[1] - route.label_at[0]) <= 1 + abs(x2 - x1) / 100


def check_way_back(box: Box, layout: Layout) -> None:
    """The way back of a loop is inside its border, or in the gap beside its box, and goes upwards beside its steps."""
    if box.way_back is None:
        return
    (_, low), (_, high), lane = box.way_back
    assert low > high
    if box.inside is None:
        beside = Box(node=box.node, x=box.x + box.width, y=high, width=lane - box.x - box.width, height=low - high)
        assert not any(overlap(beside, other) for other in layout.boxes)
    else:
        assert lane < box.x + box.width
        assert all(inner.x + inner.width < lane for inner in box.inside.boxes)


def check_layout(layout: Layout, left: float = 0.0) -> None:
    """Boxes apart from each other, what is inside inside, no arrow through a box that it does not touch."""
    check_labels(layout, left)
    for one, other in combinations(layout.boxes, 2):
        assert not overlap(one, other), (one.node.path, other.node.path)
    for box in layout.boxes:
        if box.inside is not None:
            for inner in box.inside.boxes:
                assert box.x < inner.x
                assert inner.x + inner.width < box.x + box.width
                assert box.y + box.head <= inner.y
                assert inner.y + inner.height < box.y + box.height
            check_layout(box.inside, box.x + (box.width - box.inside.width) / 2)
        check_way_back(box, layout)
    for route in layout.routes:
        # Inside a layer an arrow goes straight down, between layers there are no boxes.
        for (x, top), (_, bottom) in zip(route.points[::2], route.points[1::2], strict=True):
            for box in layout.boxes:
                if box.node.path not in {route.edge.source, route.edge.target}:
                    assert not (box.x < x < box.x + box.width and top < box.y + box.height and box.y < bottom)


def test_boxes_do_not_overlap_and_arrows_go_around_them():
    layout = lay_out(EVERYTHING.scope)

    check_layout(layout)
    assert {box.node.path for box in boxes_of(layout)} == STEPS


def choices(depth: int, width: int) -> Chart:
    """Return a chain of choices: the second option of each is the next one."""
    pairs = [(f"c{level}", f"c{level}o{number}" if number else f"c{level + 1}", number)
             for level in range(depth) for number in range(width)]  # fmt: skip
    edges = tuple(Edge(source=a, target=b, label=f"an_option_with_a_long_name_{number}") for a, b, number in pairs)
    paths = list(dict.fromkeys(path for edge in edges for path in (edge.source, edge.target)))
    layers = layered(paths, edges)
    nodes = tuple(Node(path=path, name=path, shape="choose") for path in sorted(paths, key=layers.__getitem__))
    return Chart(nodes, edges, layers)


@pytest.mark.parametrize(("depth", "width"), [(1, 2), (4, 2), (3, 5), (2, 30)])
def test_the_labels_of_a_chain_of_choices_do_not_overlap(depth: int, width: int):
    check_layout(lay_out(choices(depth, width)))


def test_many_arrows_with_a_label_into_one_box_have_a_row_each_at_most():
    edges = tuple(Edge(source=f"s{number}", target="end", label="first") for number in range(300))
    nodes = tuple(Node(path=path, name=path, shape="agent") for path in (*(edge.source for edge in edges), "end"))

    check_layout(lay_out(Chart(nodes, edges, layered([node.path for node in nodes], edges))))


def test_loops_inside_loops_are_laid_out_once_each():
    """Laid out anew for each loop around them, forty levels would never be done."""
    scope = Chart((Node(path="leaf", name="leaf", shape="agent", lines=()),), (), {"leaf": 0})
    for level in range(40):
        node = Node(path=f"l{level}", name="loop", shape="repeat", lines=(), inside=scope)
        scope = Chart((node,), (), {node.path: 0})

    layout = lay_out(scope)

    check_layout(layout)
    assert len(boxes_of(layout)) == 41


@st.composite
def scopes(draw: st.DrawFn, depth: int = 1) -> Chart:
    count = draw(st.integers(1, 9))
    paths = [f"s{depth}{index}" for index in range(count)]
    pairs = draw(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=16, unique=True))
    words = st.sampled_from(["", "first", "a_label_that_is_longer_than_its_box", "日本語の名前 or another_one"])
    edges = tuple(Edge(source=paths[a], target=paths[b], label=draw(words)) for a, b in pairs if a < b < count)
    layers = layered(paths, edges)
    inside = st.none() | scopes(depth - 1) if depth else st.none()
    nodes = [
        Node(path=path, name=draw(st.sampled_from(["a", "a longer name", "日本語の名前"])), shape="agent",
             lines=("x",) * draw(st.integers(0, 3)), many=draw(st.booleans()), again=draw(st.booleans()),
             inside=draw(inside))
        for path in paths
    ]  # fmt: skip
    return Chart(tuple(sorted(nodes, key=lambda node: layers[node.path])), edges, layers)


@given(scopes())
@settings(max_examples=60, deadline=None)
def test_no_graph_makes_boxes_overlap(scope: Chart):
    check_layout(lay_out(scope))


def test_the_picture_is_valid_xml_with_every_step_and_arrow():
    root = ET.fromstring(svg(EVERYTHING))

    assert {group.get("data-step") for group in root.iter(f"{SVG}g") if group.get("data-step")} == STEPS
    arrows = {(path.get("data-from"), path.get("data-to")) for path in root.iter(f"{SVG}path") if path.get("data-from")}
    assert {("careful", "plain"), ("refine.draft", "refine.rate"), ("write", RESULT)} <= arrows
    words = {"".join(element.itertext()) for element in root.iter(f"{SVG}text")}
    assert {"look_up", "tool fetch", "items as they come", "on error", "loop ≤ 4"} <= words


def test_everything_is_inside_the_picture():
    root = ET.fromstring(svg(EVERYTHING))
    left, top, width, height = map(float, (root.get("viewBox") or "").split())

    frames = [rect for rect in root.iter(f"{SVG}rect") if rect.get("class") in {"frame", "sheet", "label"}]
    assert len(frames) > 15
    for rect in frames:
        x, y, wide, high = (float(rect.get(key) or 0) for key in ("x", "y", "width", "height"))
        assert left <= x
        assert top <= y
        assert x + wide <= left + width
        assert y + high <= top + height


def test_the_picture_brings_its_own_ground_and_nothing_from_elsewhere():
    picture = svg(EVERYTHING)

    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in picture
    assert all(rect.get("fill", "").startswith("#") for rect in ET.fromstring(picture).iter(f"{SVG}rect"))


def test_text_of_the_picture_is_text():
    root = ET.fromstring(svg(nasty()))

    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "defs", "marker", "path", "g", "rect", "text", "polygon"}
    assert any("<b>&" in "".join(element.itertext()) for element in root.iter(f"{SVG}text"))


@pytest.mark.parametrize(
    ("wanted", "spaces", "expected"),
    [
        ([], [], []),
        ([5.0], [], [5.0]),
        ([0.0, 10.0], [4.0], [0.0, 10.0]),
        ([3.0, 3.0], [4.0], [1.0, 5.0]),
        ([9.0, 0.0, 0.0], [1.0, 1.0], [2.0, 3.0, 4.0]),
    ],
)
def test_positions_move_as_little_as_the_spaces_allow(wanted: list[float], spaces: list[float], expected: list[float]):
    assert spread(wanted, spaces) == pytest.approx(expected)


# -- all -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_a_drawing_ends_in_one_newline_and_is_the_same_every_time(form: str):
    picture = draw(everything(), form)

    assert picture == draw(everything(), form)
    assert picture.endswith("\n")
    assert not picture.endswith("\n\n")


@pytest.mark.parametrize("form", FORMATS)
def test_five_hundred_steps_are_drawn(form: str):
    """A chain of five hundred: nothing recurses along the graph."""
    steps = [step("s0"), *(step(f"s{index}", f"s{index - 1}") for index in range(1, 500))]

    assert "s499" in draw(compiled(*steps), form)


def test_a_fallback_that_has_run_before_is_said_in_the_box():
    picture = diagram(compiled(step("a"), step("b", "a", on_error="use", fallback="a")))

    assert [(edge.source, edge.target) for edge in picture.scope.edges] == [("a", "b"), ("b", RESULT)]
    assert picture.scope.nodes[1].lines == ("editor", "or, on error, a")
    check_layout(lay_out(picture.scope))
