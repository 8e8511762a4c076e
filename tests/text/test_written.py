"""Numbers that are printed as they were written."""

import json

import pytest

from synaptic.pipeline import Pipeline
from synaptic.pipeline.inputs import bind_inputs
from synaptic.text import written_number


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.10", 1.1), ("007", 7), ("01234", 1234), ("+5", 5), ("1e3", 1000.0), (".5", 0.5), ("3", 3), ("-0.5", -0.5)],
)
def test_a_number_is_printed_as_it_was_written(text: str, value: float):
    number = written_number(text)

    assert number == value
    assert type(value) in type(number).__mro__
    assert (str(number), f"{number}", "%s" % number) == (text,) * 3  # noqa: UP031 - a way to print
    assert json.loads(json.dumps(number)) == value
    assert number is not None
    assert number + 1 == value + 1


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "0x10", "1_000", "nan", "inf", "1" * 19, "1 "])
def test_what_is_no_number(text: str):
    assert written_number(text) is None


def bound(declared: str, **given: object) -> object:
    text = f"version: 1\nname: t\ninputs: {{a: {declared}}}\nsteps: {{s: {{agent: editor, prompt: x}}}}\n"
    return bind_inputs(Pipeline.parse(text + 'result: "{{ steps.s }}"'), given, {})["a"]


@pytest.mark.parametrize("written", ["1.10", "01234", "007", "3.0", "1e3", "true", "2024-01-02", "0x1F", "1_000"])
def test_what_is_declared_a_text_keeps_its_spelling(written: str):
    assert bound(f"{{type: string, default: {written}}}") == written
    assert bound("{type: string}", a=written) == written
    assert bound(f"{{type: string, choices: [{written.replace('true', 'yes')}]}}", a=written.replace("true", "yes"))


def test_choices_may_be_written_as_numbers():
    assert bound("{type: string, choices: [3.10, 3.11], default: 3.10}") == "3.10"


@pytest.mark.parametrize(("written", "printed"), [("3", "3"), ("2.50", "2.50"), ("3.0", "3.0")])
def test_a_declared_number_is_printed_as_it_was_written(written: str, printed: str):
    assert str(bound(f"{{type: number, default: {written}}}")) == printed
    assert str(bound("{type: number}", a=written)) == printed
