"""What a batch is to run: one line of JSON or one row of a table each, all of them looked at before the first call."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import Problem, UsageError
from synaptic.pipeline import bind_inputs
from synaptic.runtime.batches.parquet import input_lines, is_table
from synaptic.text import is_unicode, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from synaptic.pipeline import Pipeline

MOST_BYTES: Final = 1 << 30
_MOST_PROBLEMS: Final = 20
_LONGEST_INT: Final = 300  # digits
_EXAMPLE: Final = 'a line is {"query": "..."} with the inputs of the pipeline, or "..." for a question alone'


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One run of a batch.

    Attributes:
        line: Where it stands in the file, from 1; of a table, its row.
        key: What names it however the file is ordered: its inputs, and which of several equal ones it is.
        inputs: Those of the pipeline.
    """

    line: int
    key: str
    inputs: Mapping[str, Any]


def read_items(file: Path, pipeline: Pipeline, defaults: Mapping[str, Any]) -> list[BatchItem]:
    """Return what a file of JSON lines asks for, or a table (``.parquet``); empty lines count for nothing.

    Args:
        file: UTF-8, an object of inputs or a text (the question) a line; or Parquet, a column an input; 1 GiB at most.
        pipeline: Whose inputs they are.
        defaults: The person's own (setting ``pipeline_inputs``).

    Raises:
        UsageError: With the first mistakes, each with its line; nothing was run.
    """
    items: list[BatchItem] = []
    problems: list[Problem] = []
    without_json = 0
    seen: Counter[str] = Counter()
    for number, line in enumerate(_lines(file, pipeline), 1):
        if not line.strip():
            continue
        try:
            inputs = _inputs(line)
            bind_inputs(pipeline, inputs, defaults)
        except json.JSONDecodeError as exc:
            without_json += 1
            problems.append(Problem(f"no JSON: {exc.msg}", str(file), number, exc.colno, _EXAMPLE))
        except ValueError as exc:
            problems.append(Problem(str(exc), str(file), number, None, _EXAMPLE))
        except UsageError as exc:
            problems += [
                Problem(each.message, str(file), number, None, _suggestion(each))
                for each in exc.problems or (Problem(exc.message),)
            ]
        else:
            content = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
            seen[content] += 1
            items.append(BatchItem(number, content if seen[content] == 1 else f"{content}-{seen[content]}", inputs))
        if len(problems) >= _MOST_PROBLEMS:
            break
    if not items and without_json and without_json == len(problems):
        raise _no_lines_of_json(file, problems[0])
    if problems:
        raise UsageError.of(problems)
    if not items:
        raise UsageError(f"{file} holds nothing to run", hint=_EXAMPLE)
    return items


def _no_lines_of_json(file: Path, first: Problem) -> UsageError:
    """Return what is wrong with a file that holds something else, and what makes lines of JSON of it."""
    what, given = "a text with a question a line", "line.strip())) for line in sys.stdin"
    try:
        if isinstance(json.loads(read_text(file, "batch", UsageError, limit=MOST_BYTES)), list):
            what, given = "a list in JSON", "item)) for item in json.load(sys.stdin)"
    except (ValueError, RecursionError):
        pass
    hint = f"{_EXAMPLE}; of {what}: python3 -c 'import json, sys; [print(json.dumps({given}]' < {file} > FILE.jsonl"
    return UsageError(f"{first.source}:{first.line}: there are no lines of JSON in this file", hint=hint)


def _lines(file: Path, pipeline: Pipeline) -> list[str]:
    if is_table(file):
        return input_lines(file, pipeline.spec.inputs, limit=MOST_BYTES)
    return read_text(file, "batch", UsageError, limit=MOST_BYTES).split("\n")


def _suggestion(problem: Problem) -> str:
    """Return a suggestion that is about a line of the file, and not about the command line."""
    near = problem.suggestion or ""
    return near if near.startswith("did you mean") else _EXAMPLE


def _inputs(line: str) -> dict[str, Any]:
    """Return the inputs that a line gives.

    Raises:
        ValueError: If it is neither an object nor a text; json.JSONDecodeError if it is no JSON.
    """
    try:
        value = json.loads(line, parse_constant=_no_number, parse_int=_int)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not is_unicode(line) or ("\\u" in line and not is_unicode(json.dumps(value, ensure_ascii=False))):
        raise ValueError("it has half a character in it: \\ud800 to \\udfff come in pairs")
    if isinstance(value, str):
        return {"query": value}
    if not isinstance(value, dict):
        raise ValueError(f"{line.strip()[:40]} is neither an object nor a text")
    return value


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _int(digits: str) -> int:
    if len(digits) > _LONGEST_INT:
        raise ValueError(f"it has a number of {len(digits)} digits in it")
    return int(digits)
