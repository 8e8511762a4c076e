"""The tests of a pipeline, checked without running them: inputs, replies of steps, and what is expected."""

from __future__ import annotations

import re
from collections import ChainMap
from typing import TYPE_CHECKING, Any, Final

from synaptic.pipeline.checking import RUN, Texts, View, wrong_reply
from synaptic.pipeline.compiler.declarations import check_written
from synaptic.pipeline.documents import document_of
from synaptic.pipeline.inputs import misnamed
from synaptic.pipeline.templates import TEXT, UNKNOWN, Number, Record
from synaptic.text import did_you_mean, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline.checking import Answering, Report, SourceFile
    from synaptic.pipeline.loader import Pipeline
    from synaptic.pipeline.spec import CaseSpec, ExpectSpec, InputSpec
    from synaptic.pipeline.templates import StaticType
    from synaptic.text import KeyPath

_NUMBER: Final = re.compile(r"\[\d*\]")
_AFTER: Final = Record({**RUN.fields, "stop_reason": TEXT, "calls": Number(whole=True)}, RUN.missing)
"""The root ``run`` once the run has ended."""


def check_cases(
    file: SourceFile, pipeline: Pipeline, answers: Mapping[str, Answering], view: View, result: StaticType
) -> None:
    """Report every mistake in the tests.

    ``answers`` is what the steps answer, by their paths; ``view``, what the pipeline's result sees.
    """
    seen = View(view.own, ChainMap(), {**view.roots, "run": _AFTER, "result": result}, view.inner)
    texts = Texts(file.report)  # of its own: a field that only a test asks for is not wanted by the pipeline
    for name, case in pipeline.spec.tests.items():
        path = ("tests", name)
        _check_inputs(file, pipeline, case, path)
        for key, reply in case.replies.items():
            _check_reply(file.report, key, reply, answers, (*path, "replies", key))
        _check_expected(file.report, case.expect, result, (*path, "expect"))
        for index, text in enumerate(case.expect.contains):
            if not text.strip():
                here = _item(file, (*path, "expect", "contains"), index)
                file.report.at_value("an empty text stands in every answer", here, "write some words of it")
        for index, condition in enumerate(case.expect.that):
            texts.condition(condition, _item(file, (*path, "expect", "that"), index), seen)


def _item(file: SourceFile, path: KeyPath, index: int) -> KeyPath:
    """Return where one of several texts stands: a single one stands where the list would."""
    return (*path, index) if (*path, index) in file.report.document.values else path


def _check_inputs(file: SourceFile, pipeline: Pipeline, case: CaseSpec, path: KeyPath) -> None:
    declared = pipeline.spec.inputs
    broken = file.broken.get(("inputs",), ())
    given = {name: value for name, value in case.inputs.items() if name not in broken}
    unknown = misnamed(given, declared)
    meant = {name for name, _ in unknown.values()}
    for name, value in given.items():
        here = (*path, "inputs", name)
        if name in unknown:
            file.report.at_key(f"the pipeline has no input {name!r}", here, unknown[name][1])
        elif value is not None:
            _check_value(pipeline, value, declared[name], here, file.report)
    for name, spec in declared.items():
        if spec.required and given.get(name) is None and name not in meant:
            advice = f"write it under the test's 'inputs', as in {name}: …"
            file.report.at_key(f"the test {path[-1]!r} lacks the input {name!r}", path, advice)


def _check_value(pipeline: Pipeline, value: Any, spec: InputSpec, path: KeyPath, report: Report) -> None:
    called = f"the input {path[-1]!r}"
    if spec.type not in {"file", "files"}:
        check_written(pipeline, value, spec, path, report, called=called)
        return
    many = spec.type == "files" and isinstance(value, list)
    for index, part in enumerate(value if many else [value]):
        here = (*path, index) if many else path
        if not isinstance(part, dict):
            check_written(pipeline, part, spec, here, report, called=called)
            continue
        try:
            document_of(part)
        except ValueError as exc:
            report.at_value(f"{called} {exc}", here, "write {name: notes.txt, text: …}")


def _check_reply(report: Report, key: str, reply: Any, answers: Mapping[str, Answering], path: KeyPath) -> None:
    answering = _answering(report, key, answers, path)
    if answering is None:
        return
    replies = reply if isinstance(reply, list) else [reply]
    if not replies:
        report.at_value(f"the list of replies of {key!r} is empty", path, "write one for each call, or remove it")
    for index, one in enumerate(replies):
        wrong = wrong_reply(one, answering)
        if wrong is not None:
            here = (*path, index) if isinstance(reply, list) else path
            report.at_value(f"the reply of {key!r} {wrong[0]}", here, wrong[1])


def _answering(report: Report, key: str, answers: Mapping[str, Answering], path: KeyPath) -> Answering | None:
    """Return what answers at a path, numbered as in events or without any number; ``None`` after reporting none."""
    plain = {marked.replace("[]", ""): answering for marked, answering in answers.items()}
    marked = _NUMBER.sub("[]", key)
    if "[]" not in key and (marked in answers or key in plain):
        return answers.get(marked) or plain[key]
    bare = _NUMBER.sub("", key)
    if any(answering.open and bare.startswith(f"{owner}.") for owner, answering in plain.items()):
        return None
    if bare in plain:
        shape = next(marked for marked in answers if marked.replace("[]", "") == bare)
        advice = f"write {bare!r} for every call" + (f", or {shape.replace('[]', '[1]')!r}" if "[" in shape else "")
        report.at_key(f"no call of {bare!r} is numbered like this: {key!r}", path, advice)
        return None
    inside = [one for one in plain if one.startswith(f"{bare}.")]
    if inside and not inside[0].endswith(".approve"):
        report.at_key(f"{key!r} is a loop, and has no reply of its own", path, f"write those of {', '.join(inside)}")
        return None
    report.at_key(f"no step {one_line(key)!r} is there to reply", path, did_you_mean(bare, plain))
    return None


def _check_expected(report: Report, expect: ExpectSpec, result: StaticType, path: KeyPath) -> None:
    if expect.fails is not None:
        for key in ("result", "contains"):
            if key in expect.model_fields_set:
                message = f"{key!r} is of a run that ends well, and this one is to fail"
                report.at_key(message, (*path, key), "remove it, or 'fails'")
        return
    if expect.result is None or result == UNKNOWN:
        return
    if isinstance(result, Record) != isinstance(expect.result, dict):
        there, here = ("a mapping", "text") if isinstance(result, Record) else ("text", "a mapping")
        report.at_value(f"the pipeline's result is {there}, and this is {here}", (*path, "result"), f"write {there}")
    elif isinstance(result, Record) and isinstance(expect.result, dict):
        for name in expect.result:
            if name not in result.fields:
                report.at_key(f"the result has no {name!r}", (*path, "result", name), did_you_mean(name, result.fields))
