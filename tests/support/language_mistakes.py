"""Mistakes in lists, conditions, results and tests of a pipeline; rows as in ``pipeline_mistakes``."""

from pipeline_mistakes import in_step

TOOL = "tool: count_words\nwith: {text: x}\n"

LANGUAGE_MISTAKES = [
    in_step("causes of a tool", TOOL + "retry: {attempts: 2, §on: [busy]}", "remove it"),
    in_step("repairs of a tool", TOOL + "retry: {§repairs: 2}", "write 'attempts'"),
]
