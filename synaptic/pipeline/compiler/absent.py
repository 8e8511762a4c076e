"""What fails in a run where something is not there: the output of a skipped step, the round before the first one.

Each way for one thing to be absent is a scenario: its condition was false, its option was not chosen, it failed and may
be skipped. What follows from it for the other steps is worked out, and the templates of those that run then are tried.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from synaptic.pipeline.checking import UsedPipeline
from synaptic.pipeline.templates import (
    ANYTHING,
    SKIPPED,
    Expression,
    Fails,
    Fields,
    Known,
    OneOf,
    Record,
    Scenario,
    Structure,
    Template,
    Truth,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from synaptic.pipeline.checking import Checked, Report, SourceFile
    from synaptic.pipeline.compiler.draft import Draft, LoopBody
    from synaptic.pipeline.spec import PipelineSpec
    from synaptic.pipeline.templates import Value
    from synaptic.text import KeyPath

_MOST_LOOKS = 50_000
"""Steps that are looked at, each once a scenario, in one file. What is beyond them, the run will say."""
_PASSES = 8
"""Steps in a chain, written in the reverse order, of which one is skipped because the one before it was."""


def report_absent(
    file: SourceFile, spec: PipelineSpec, steps: LoopBody, result: Checked[Any] | None
) -> tuple[Value, ...]:
    """Report what fails where a step was skipped, and warn of what fails where an input is not given.

    Returns what the result may be where something in it is not there, for pipelines that use this one.
    """
    check = _Check(file, [result] if result is not None else [])
    check.scope(steps, Scenario())
    check.only_warns = True
    for name, declared in spec.inputs.items():
        if not declared.required and declared.default is None:
            origin = f"inputs.{name}"
            check.everything(steps, Scenario().with_fields("inputs", {name: Known(None, origin)}), check.result)
    return tuple(check.results.values())


@dataclass
class _Check:
    """Tries scenario after scenario.

    Attributes:
        result: The templates of the pipeline's result.
        only_warns: Whether what fails is a warning: the person who runs the pipeline may give the input always.
        results: What the result may be where something in it is not there, each once.
        said: The lines of texts about which something was said; of a line with another mistake nothing is.
    """

    file: SourceFile
    result: list[Checked[Any]]
    only_warns: bool = False
    results: dict[str, Value] = field(default_factory=dict)
    said: set[tuple[KeyPath, int]] = field(default_factory=set)
    count: int = 0

    # -- scenarios ----------------------------------------------------------------------------------------

    def scope(self, steps: LoopBody, known: Scenario, ends: Sequence[Checked[Any]] | None = None) -> None:
        """Try each way in which one step of a scope, or of a loop in it, may be absent."""
        last = self.result if ends is None else ends
        for absent in _absences(steps):
            self.everything(steps, _union(known, absent), last)
        for draft in steps.drafts.values():
            inside = _running(steps, draft, known)
            self._race(steps, draft, known)
            first = inside.with_root("previous", Known(SKIPPED, "previous"))
            if draft.outline.itself:
                self.parts(draft, [*draft.built.parts, *_ends(draft)], first)
            if draft.body is not None:
                self.everything(draft.body, first, _ends(draft))
                for absent in _absences(draft.body):
                    outputs = _seen_as("previous", _worked_out(draft.body, absent).names["steps"])
                    self.everything(draft.body, inside.with_root("previous", outputs), _ends(draft))
                self.scope(draft.body, inside, _ends(draft))

    def _race(self, steps: LoopBody, draft: Draft, known: Scenario) -> None:
        """Try a step that does not wait for all: one of its needs is there, and the others are not."""
        needs = _needs(steps, draft)
        if draft.outline.spec.join == "all" or len(needs) < 2:
            return
        for winner in reversed(needs):  # so that the one that is read first is said
            others = {need: _skipped(need) for need in needs if need != winner}
            there = {winner: Fields({})} if known.of_step(winner) is ANYTHING else {}
            self._step(steps, draft, known.with_fields("steps", {**others, **there}))

    def everything(self, steps: LoopBody, known: Scenario, ends: Sequence[Checked[Any]]) -> None:
        """Try every template of a scope in a scenario, and ``ends`` after all of its steps."""
        self.count += len(steps.drafts)
        if self.count > _MOST_LOOKS:
            return
        known = _worked_out(steps, _all_there(steps, known))
        for name, draft in steps.drafts.items():
            if _is_skipped(known.of_step(name)):
                continue
            self._step(steps, draft, known)
        self.parts(None, ends, known)
        if ends is self.result and ends and not self.only_warns:
            value = _result_in(ends[0].code, known)
            if value is not ANYTHING:
                self.results[repr(value)] = value

    def _step(self, steps: LoopBody, draft: Draft, known: Scenario) -> None:
        self.parts(draft, [draft.when], known)
        running = _running(steps, draft, known)
        self.parts(draft, [draft.foreach, *draft.checked, *(_ends(draft) if draft.outline.itself else ())], running)
        self.demands(draft, running)
        if draft.body is not None:
            self.everything(draft.body, running.with_root("previous", ANYTHING), _ends(draft))

    # -- templates ----------------------------------------------------------------------------------------

    def parts(self, draft: Draft | None, parts: Sequence[Checked[Any] | None], known: Scenario) -> None:
        """Report what fails in a scenario."""
        for part in _each(parts):
            try:
                value = part.code.outcome(known)
            except Fails as exc:
                self.report(part.path, exc)
                continue
            bound = draft is not None and part is draft.bound
            listed = draft is not None and part is draft.foreach
            absent = value if isinstance(value, Known) and value.origin is not None else None
            if absent is not None and (bound or (listed and absent.value is None)):
                self.report(part.path, Fails(absent.origin or "", 1, part.code.source))

    def demands(self, draft: Draft, known: Scenario) -> None:
        """Report a value under ``with`` that is the output of a skipped step, where that will not do."""
        work = draft.built.work
        if work is None:
            return
        for name, binding in work.demanded.items():
            value = _outcome(binding, known) if isinstance(binding, Expression) else ANYTHING
            if isinstance(value, Known) and value.origin is not None and (value.value is None or _is_skipped(value)):
                failure = Fails(value.origin, 1, binding.source)
                self.report((*draft.outline.path, "with", name), failure, f"{work.name!r} needs {name!r}")

    def report(self, path: KeyPath, failure: Fails, use: str = "") -> None:
        """Say once what is used there without being there, and what to write."""
        report: Report = self.file.report.warnings if self.only_warns else self.file.report
        document = report.document
        line, _ = document.locate(path, failure.line, failure.token)
        wrong = any((problem.source, problem.line) == (document.source, line) for problem in self.file.report.problems)
        if wrong or (path, failure.line) in self.said:
            return
        self.said.add((path, failure.line))
        message, advice = _words(failure.origin, failure.token, use)
        report.in_text(message, path, failure.line, failure.token, advice)


def _words(origin: str, token: str, use: str) -> tuple[str, str]:
    """Return what is wrong with using what is not there, and what to write instead."""
    purpose = f", and {use}" if use else ", and nothing is there to compare or calculate with then"
    if origin == "previous":
        return f"{origin!r} is nothing in the first round{purpose}", f"write {origin} and …, or {token} | default(0)"
    if origin.startswith("inputs."):
        return f"{origin!r} is nothing where it is not given{purpose}", f"give it a default, or write {origin} and …"
    advice = (
        f"give the step 'when: {origin}', or write {token} or …"
        if use
        else f"write {origin} and …, or {token} | default(0)"
    )
    return f"{origin!r} may have been skipped{purpose}", advice


# -- how a step may be absent -----------------------------------------------------------------------------------


def _absences(steps: LoopBody) -> Iterator[Scenario]:
    """Yield each way in which one step of a scope, or of a loop in it, may have no output after it was resolved."""
    for name, draft in steps.drafts.items():
        gone = Scenario().with_fields("steps", {name: _skipped(name)})
        spec = draft.outline.spec
        gates = steps.gates.get(name, {})
        others = {gate: _but(steps, gate, labels) for gate, labels in gates.items()}
        if gates and all(value.values for value in others.values()):
            yield gone.with_fields("steps", others)
        if draft.when is not None and not draft.asks_items:
            yield gone.with_facts(draft.when.code.assumed(holds=False))
        if spec.on_error.action == "skip" and spec.foreach is None:
            yield gone
        if isinstance(draft.outline.found, UsedPipeline) and spec.foreach is None:
            for value in draft.outline.found.absent:
                yield Scenario().with_fields("steps", {name: _seen_as(f"steps.{name}", value)})
        if draft.body is not None and spec.foreach is None:
            for inner in _absences(draft.body):
                outputs = _worked_out(draft.body, inner).names["steps"]
                yield Scenario().with_fields("steps", {name: _seen_as(f"steps.{name}", outputs)})


def _result_in(code: Any, known: Scenario) -> Value:
    """Return what a result is in a scenario, as far as something in it is not there."""
    if isinstance(code, Structure):
        code = code.binding
    if isinstance(code, dict):
        values = {key: _result_in(value, known) for key, value in code.items()}
        absent = {key: value for key, value in values.items() if value is not ANYTHING}
        return Fields(absent) if absent else ANYTHING
    whole = isinstance(code, Expression) or (isinstance(code, Template) and code.sole_reference is not None)
    value = _outcome(code, known) if whole else ANYTHING
    return value if _is_skipped(value) else ANYTHING


def _seen_as(name: str, outputs: Value) -> Value:
    """Return the outputs of a round, some of which are not there, as they are called from elsewhere."""
    if isinstance(outputs, Fields):
        return Fields({field: _seen_as(f"{name}.{field}", value) for field, value in outputs.known.items()})
    return Known(SKIPPED, name) if _is_skipped(outputs) else ANYTHING


def _worked_out(steps: LoopBody, known: Scenario) -> Scenario:
    """Return the scenario with what follows for the other steps."""
    for _ in range(_PASSES):
        changed = False
        for name, draft in steps.drafts.items():
            if known.of_step(name) is ANYTHING and (value := _follows(steps, draft, known)) is not ANYTHING:
                known, changed = known.with_fields("steps", {name: value}), True
        if not changed:
            break
    return known


def _all_there(steps: LoopBody, known: Scenario) -> Scenario:
    """Return the scenario with the steps that are always there, as far as nothing else is known of them."""
    there = {name: _present(draft) for name, draft in steps.drafts.items()
             if not steps.gates.get(name) and draft.when is None}  # fmt: skip
    return known.with_fields("steps", {name: value for name, value in there.items() if known.of_step(name) is ANYTHING})


def _present(draft: Draft) -> Value:
    """Return what is known of the output of a step that ran: whether it counts as true."""
    outline, spec = draft.outline, draft.outline.spec
    may_be_absent = spec.on_error.action == "skip" or spec.join != "all" or isinstance(outline.found, UsedPipeline)
    if may_be_absent or spec.foreach is not None or not isinstance(outline.output, Record):
        return ANYTHING
    return Fields({})


def _follows(steps: LoopBody, draft: Draft, known: Scenario) -> Value:
    gates, needs = steps.gates.get(draft.outline.name, {}), _needs(steps, draft)
    closed = [
        _is_skipped(value) or (isinstance(value, OneOf) and not set(value.values) & set(labels))
        for value, labels in ((known.of_step(gate), labels) for gate, labels in gates.items())
    ]
    missed = draft.outline.spec.join != "all" and all(_is_skipped(known.of_step(need)) for need in needs)
    if (closed and all(closed)) or (needs and missed):
        return _skipped(draft.outline.name)
    if draft.when is not None and not draft.asks_items and _is_false(_outcome(draft.when.code, known)):
        return _skipped(draft.outline.name)
    if draft.foreach is not None and isinstance(draft.foreach.code, Expression):
        items = _outcome(draft.foreach.code, known)
        if isinstance(items, Known) and items.origin is not None and not items.value and items.value is not None:
            return Known([], items.origin)
    chosen = [(known.of_step(gate), labels) for gate, labels in gates.items()]
    if draft.when is None and any(isinstance(one, OneOf) and set(one.values) <= set(labels) for one, labels in chosen):
        return _present(draft)
    return ANYTHING


def _running(steps: LoopBody, draft: Draft, known: Scenario) -> Scenario:
    """Return what is known while the step runs: its condition holds, and one of its options was chosen."""
    gates = steps.gates.get(draft.outline.name, {})
    for gate, labels in gates.items() if len(gates) == 1 else ():
        if known.of_step(gate) is ANYTHING:
            known = known.with_fields("steps", {gate: OneOf(tuple(labels))})
    return known if draft.when is None else known.with_facts(draft.when.code.assumed(holds=True))


def _but(steps: LoopBody, gate: str, labels: list[str]) -> OneOf:
    """Return the other labels of a choice."""
    return OneOf(tuple(label for label in steps.drafts[gate].outline.options if label not in labels))


def _needs(steps: LoopBody, draft: Draft) -> list[str]:
    return [name for name in draft.names if name in steps.drafts]


def _ends(draft: Draft) -> list[Checked[Any]]:
    return [part for part in (draft.until, draft.score) if part is not None]


def _each(parts: Sequence[Checked[Any] | None]) -> Iterator[Checked[Any]]:
    for part in parts:
        if part is not None:
            yield from (part,) if isinstance(part.code, (Expression, Template)) else part.parts


def _outcome(code: Expression | Template, known: Scenario) -> Value:
    try:
        return code.outcome(known)
    except Fails:
        return ANYTHING  # which is said where the template is looked at itself


def _skipped(name: str) -> Known:
    return Known(SKIPPED, f"steps.{name}")


def _is_skipped(value: Value) -> bool:
    return isinstance(value, Known) and value.value is SKIPPED


def _is_false(value: Value) -> bool:
    return (isinstance(value, Known) and not value.value) or (isinstance(value, Truth) and not value.holds)


def _union(known: Scenario, more: Scenario) -> Scenario:
    steps = more.names.get("steps")
    fields: Mapping[str, Value] = steps.known if isinstance(steps, Fields) else {}
    return known.with_fields("steps", fields).with_facts(more.facts)
