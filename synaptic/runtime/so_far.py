"""What can be said of a pipeline's result before its steps have all ended.

Only of the result: what other steps found is no answer, however good it is. It stands in the steps of the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import PipelineError
from synaptic.pipeline import Structure, present, settled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline import CompiledPipeline, CompiledStep
    from synaptic.runtime.events import Answer
    from synaptic.runtime.ledger import Ledger
    from synaptic.runtime.scope import Scope


_WHOLE: Final = frozenset({"repeat", "pipeline"})


def result_of(compiled: CompiledPipeline, variables: Mapping[str, Any], *, where: str) -> Any:
    """Return the result of a used pipeline: the value itself where it is one reference or a mapping, else its text.

    Raises:
        PipelineError: If something that it speaks of is not there.
    """
    if isinstance(compiled.result, Structure):
        return compiled.result.evaluate(variables, where=where)
    reference = compiled.result.sole_reference
    if reference is None:
        return compiled.result.render(variables, where=where)
    value: Any = variables[reference.root]
    for part in reference.path:
        value = value[part]
    return value


def kept(ledger: Ledger, step: CompiledStep, path: str) -> Any:
    """Return what a step that was cut gives and that is whole: a loop its best round, a used pipeline its result.

    ``None`` where there is none, and where a person was to approve it.
    """
    result = ledger.last(path)
    if result is None or result.status != "cancelled" or step.approve in {"output", "both"}:
        return None
    return result.output if result.kind in _WHOLE else None


def answer_so_far(compiled: CompiledPipeline, scope: Scope, ledger: Ledger) -> Answer:
    """Return the best answer of a run that did not come to its end, "" where nothing of its result is there.

    Loops give their best round, maps the items that they have, a call the text that it has written.
    """
    outputs = dict(scope.outputs)
    for name in compiled.needed - outputs.keys():
        writer = compiled.text_of(name)
        result = ledger.last(scope.prefix + (writer or name))
        if result is not None and result.output and (writer is not None or result.kind == "map"):
            outputs[name] = result.output if writer is None else str(result.output)
    if not any(present(outputs.get(name)) for name in compiled.needed):
        return ""
    answer: Answer = settled(compiled.result.so_far({**scope.variables, "steps": outputs}))
    return answer


def result_so_far(compiled: CompiledPipeline, scope: Scope, *, where: str) -> Any:
    """Return the result of a used pipeline that was cut, ``None`` where it would not be whole.

    The best round of a loop is whole; a text that broke off is not, and is handed on to no other step.
    """
    if not compiled.needed <= scope.outputs.keys():
        return None
    try:
        value = result_of(compiled, scope.variables, where=where)
    except PipelineError:
        return None
    return value if present(value) else None
