"""LangGraph's side of ``durable.py``: a ``StateGraph`` with its ``SqliteSaver``, as it is when nothing is set.

With ``delta`` what the steps write is in its ``DeltaChannel`` (beta), which keeps what was written and not the whole.

``python -m sides.durable_langgraph CASE PARAMETERS``, one JSON object on standard output.
"""

# No `from __future__ import annotations`: the library reads the annotations of states when it runs.
import json
import operator
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

from sides.durable_texts import Texts, bytes_under, home

ROUNDS = 3


class State(TypedDict):
    """What the steps said, and what all of them read."""

    said: Annotated[list[str], operator.add]
    document: str


def joined(said: list[str], more: Sequence[list[str]]) -> list[str]:
    """Return a list with what was written to it since."""
    return [*said, *(text for texts in more for text in texts)]


class DeltaState(TypedDict):
    """The same, each kept as what was written to it."""

    said: Annotated[list[str], DeltaChannel(joined)]
    document: Annotated[list[str], DeltaChannel(joined)]


class Last(TypedDict):
    """What the last step said."""

    said: str


class Delta(TypedDict):
    """What all steps said."""

    said: Annotated[list[str], DeltaChannel(joined)]


def chain(state: type, steps: int, work: Any) -> StateGraph:
    """Return steps that each read what is in the state."""
    graph = StateGraph(state)
    for number in range(steps):
        graph.add_node(f"s{number}", work)
        graph.add_edge(START if number == 0 else f"s{number - 1}", f"s{number}")
    graph.add_edge(f"s{steps - 1}", END)
    return graph


def size(*, steps: int, answer: int, document: int, kind: str, delta: bool = False) -> dict[str, Any]:
    """Return the bytes that a run takes on the disk, by the bytes that its steps and its caller gave it."""
    texts = Texts(kind, answer, steps)
    whole = Texts(kind, document, 1).next() if document else ""
    graph = chain(DeltaState if delta else State, steps, lambda _: {"said": [texts.next()]})
    with SqliteSaver.from_conn_string(str(Path(home()) / "graph.sqlite")) as saver:
        config = {"configurable": {"thread_id": "1"}, "recursion_limit": steps + 5}
        graph.compile(checkpointer=saver).invoke({"said": [], "document": [whole] if delta else whole}, config)
    return {"stored": bytes_under(home()), "data": texts.bytes + len(whole.encode()), "steps": steps}


def step(*, steps: int, delta: bool = False) -> dict[str, Any]:
    """Return microseconds a step of the fastest of a few runs."""
    laps = []
    for turn in range(ROUNDS):
        texts = Texts("words", 40, steps)
        state: type = Delta if delta else Last
        graph = chain(state, steps, lambda _, texts=texts: {"said": [texts.next()] if delta else texts.next()})
        with SqliteSaver.from_conn_string(str(Path(home()) / f"graph-{turn}.sqlite")) as saver:
            compiled = graph.compile(checkpointer=saver)
            config = {"configurable": {"thread_id": "1"}, "recursion_limit": steps + 5}
            begin, busy = time.perf_counter(), time.process_time()
            compiled.invoke({"said": [] if delta else ""}, config)
            laps.append((time.perf_counter() - begin, time.process_time() - busy))
    return {
        "wall": round(min(wall for wall, _ in laps) / steps * 1e6, 1),
        "cpu": round(min(cpu for _, cpu in laps) / steps * 1e6, 1),
    }


if __name__ == "__main__":
    print(json.dumps({"size": size, "step": step}[sys.argv[1]](**json.loads(sys.argv[2]))))
