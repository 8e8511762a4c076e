"""Reading the long inputs of a run: notes of their parts, all at once, and notes of notes until they fit."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from synaptic.errors import SynapticError
from synaptic.pipeline import Graph, Pipeline, PlannedStep, compile_pipeline, planned_steps
from synaptic.runtime.events import InputDivided
from synaptic.runtime.failure import StepFailed
from synaptic.runtime.long_input.division import LABEL_TOKENS
from synaptic.runtime.long_input.text_parts import joined, notes_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synaptic.messages import Route
    from synaptic.pipeline import CompileContext, CompiledPipeline, Plan
    from synaptic.runtime.ledger import Ledger
    from synaptic.runtime.long_input.division import Division
    from synaptic.runtime.long_input.text_parts import TextPart
    from synaptic.runtime.policies import Bounds
    from synaptic.runtime.scope import Scope

PATH: Final = "inputs"
"""What events call the reading; the map over the parts of an input is ``inputs.query``."""

WORDS_PER_TOKEN: Final = 0.6
MOST_ROUNDS: Final = 6

_FILE: Final = Path(__file__).with_name("read.yaml")


class GraphRunner(Protocol):
    """Runs graphs: the executor."""

    ledger: Ledger

    def scope(
        self, prefix: str, inputs: Mapping[str, Any], run: Mapping[str, Any], bounds: Bounds, after: int = 0
    ) -> Scope:
        """Return the outermost scope of a pipeline."""
        ...

    def run_variables(self, pipeline: str) -> dict[str, Any]:
        """Return the root ``run`` as the pipeline sees it."""
        ...

    async def graph(self, graph: Graph, scope: Scope) -> None:
        """Run every step of the graph."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """The long inputs of one run, and the pipeline that reads them."""

    divisions: tuple[Division, ...]
    compiled: CompiledPipeline

    @classmethod
    def of(cls, divisions: tuple[Division, ...], context: CompileContext) -> Reading:
        """Return the reading of some inputs."""
        return cls(divisions, compile_pipeline(Pipeline.load(_FILE), context))

    def planned(self, plan: Plan) -> Plan:
        """Return the plan with what is read before its first step."""
        first, *_ = planned_steps(self.compiled, {}, None, None)
        whole = replace(
            first, path=PATH, kind="pipeline", work="pipeline", what=self.compiled.pipeline.name, agent=None, times="1"
        )
        rows = [replace(whole, on_error="fail", critical=False)]
        rows += [row for division in self.divisions for row in self._rows(division, plan.route)]
        return replace(plan, long_inputs=tuple(division.shown for division in self.divisions), reading=tuple(rows))

    def _rows(self, division: Division, route: Route) -> list[PlannedStep]:
        graph = self._graph(division.shown.name, division.note)
        rows = planned_steps(replace(self.compiled, graph=graph), {"parts": [*division.parts]}, route, None)
        return [replace(row, path=f"{PATH}.{row.path}", depth=1, critical=False) for row in rows]

    def _graph(self, name: str, tokens: int) -> Graph:
        """Return the one step that reads parts and writes at most so many tokens about each."""
        (step,) = self.compiled.graph.steps.values()
        work: Any = step.work
        work = replace(work, call=replace(work.call, max_tokens=tokens))
        return Graph.of({name: replace(step, id=name, work=work)})

    async def read(self, runner: GraphRunner, inputs: Mapping[str, Any], bounds: Bounds) -> dict[str, Any]:
        """Return the inputs with notes in the place of those that are too long.

        Raises:
            StepFailed: If no part of an input could be read.
            BudgetExceeded: If the run's budget was used up meanwhile.
        """
        ledger = runner.ledger
        for division in self.divisions:
            ledger.emit(InputDivided(division.shown))
        started = ledger.started(PATH, "pipeline")
        try:
            found, remarks = {}, []
            for division in self.divisions:
                name = division.shown.name
                notes, missing = await self._notes(runner, division, bounds)
                found[name] = notes_value(inputs[name], division.question, notes, missing)
                remarks += [f"{missing} of {len(division.parts)} parts of {name} could not be read"] if missing else []
        except asyncio.CancelledError:
            ledger.ended(PATH, "pipeline", "cancelled", started=started)
            raise
        except (StepFailed, SynapticError) as exc:
            error = exc.cause if isinstance(exc, StepFailed) else exc
            ledger.ended(PATH, "pipeline", "failed", started=started, error=error)
            raise
        ledger.ended(PATH, "pipeline", "succeeded", started=started, stop_reason=", ".join(remarks) or None)
        return {**inputs, **found}

    async def _notes(self, runner: GraphRunner, division: Division, bounds: Bounds) -> tuple[Sequence[TextPart], int]:
        """Return the notes of an input, of its parts and then of groups of notes until they fit; and how many lack."""
        name, parts = division.shown.name, division.parts
        notes = await self._read(runner, name, division, parts, bounds)
        missing = len(parts) - len(notes)
        for number in range(2, MOST_ROUNDS):
            groups = grouped(notes, division)
            if len(groups) == len(notes):
                break
            notes = await self._read(runner, f"{name}.round{number}", division, groups, bounds)
            missing += sum(group.last - group.first + 1 for group in groups) - sum(
                note.last - note.first + 1 for note in notes
            )
        return notes, missing

    async def _read(
        self, runner: GraphRunner, name: str, division: Division, parts: Sequence[TextPart], bounds: Bounds
    ) -> list[TextPart]:
        """Return a note of each part that could be read."""
        graph = self._graph(name, division.note)
        inputs = {
            "question": division.question,
            "earlier": division.earlier,
            "words": int(division.note * WORDS_PER_TOKEN),
            "parts": [{"label": part.label, "text": part.text} for part in parts],
        }
        run = runner.run_variables(self.compiled.pipeline.name)
        before = len(runner.ledger.results)
        await runner.graph(graph, runner.scope(f"{PATH}.", inputs, run, bounds))
        texts = {
            result.id: str(result.output)
            for result in runner.ledger.results[before:]
            if result.status == "succeeded" and result.output
        }
        paths = [(f"{PATH}.{name}[{index}]", part) for index, part in enumerate(parts)]
        return [part.noted(" ".join(texts[path].split())) for path, part in paths if path in texts]


def grouped(notes: Sequence[TextPart], division: Division) -> list[TextPart]:
    """Return the notes in groups that fit a prompt, as few as are needed for all notes of them to fit their room."""
    each = division.note + LABEL_TOKENS
    if len(notes) * each <= max(division.room, each):
        return list(notes)
    size = max(2, min(math.ceil(len(notes) * each / division.room), division.room_for_part // each))
    return [joined(notes[start : start + size]) for start in range(0, len(notes), size)]
