"""What templates in Go's notation make of a chat, and whether they leave an answer open that is to be continued."""

from __future__ import annotations

import pytest
from chat_turns import TEMPLATES
from hypothesis import given, settings
from hypothesis import strategies as st

from synaptic.models import LastTurn, last_turn
from synaptic.models.go_syntax import GoTemplateError, parse
from synaptic.models.go_template import Struct, render

LAST = "{{- range $i, $_ := .Messages }}{{- $last := eq (len (slice $.Messages $i)) 1 }}"

CLOSED = {
    "chatml": TEMPLATES["closed"],
    "llama3 of Ollama's source": (
        "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>\n"
        "{{- end }}<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "gemma": (
        '{{- $system := "" }}{{- range .Messages }}{{- if eq .Role "system" }}'
        '{{- if not $system }}{{ $system = .Content }}{{- else }}{{ $system = printf "%s\\n\\n%s" $system .Content }}'
        '{{- end }}{{- continue }}{{- else if eq .Role "user" }}<start_of_turn>user\n{{- if $system }}\n{{ $system }}'
        '{{- $system = "" }}{{- end }}{{- else if eq .Role "assistant" }}<start_of_turn>model\n{{- end }}\n'
        "{{ .Content }}<end_of_turn>\n{{ end }}<start_of_turn>model\n"
    ),
    "gemma3 asks for the last message, and closes it": (
        LAST + '{{- if eq .Role "user" }}<start_of_turn>user\n{{ .Content }}<end_of_turn>\n'
        '{{ else if eq .Role "assistant" }}<start_of_turn>model\n{{ .Content }}<end_of_turn>\n{{ end }}'
        "{{- if $last }}<start_of_turn>model\n{{ end }}{{- end }}"
    ),
    "mistral": (
        '[INST] {{ range $index, $_ := .Messages }}{{- if eq .Role "system" }}{{ .Content }}\n\n'
        '{{ else if eq .Role "user" }}{{ .Content }}[/INST]{{- else if eq .Role "assistant" }} {{ .Content }}</s>'
        "[INST] {{ end }}{{- end }}"
    ),
    "mistral of the library, which closes with a mere </s>": (
        '{{- range $index, $_ := .Messages }}{{- if eq .Role "user" }}[INST] '
        "{{ if and $.System (eq (len (slice $.Messages $index)) 1) }}{{ $.System }}\n\n{{ end }}{{ .Content }}[/INST]"
        '{{- else if eq .Role "assistant" }}{{- if .Content }} {{ .Content }}{{- else if .ToolCalls }}[TOOL_CALLS] ['
        '{{- range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{- end }}]'
        "{{- end }}</s>{{- end }}{{- end }}"
    ),
    "phi": "{{- range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}<|assistant|>\n",
    "granite": (
        '{{- range .Messages }}{{- if eq .Role "system" }}System:{{- else if eq .Role "user" }}Question:'
        '{{- else if eq .Role "assistant" }}Answer:{{- end }}\n{{ .Content }}\n\n{{ end }}Answer:\n'
    ),
    "command-r": (
        "{{- if or .Tools .System }}<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{{- if .Tools }}# Tools"
        "{{- range .Tools }}{{ .Function.Name }}{{- end }}{{- else if .System }}{{ .System }}{{- end }}"
        '<|END_OF_TURN_TOKEN|>{{- end }}{{- range .Messages }}{{- if eq .Role "system" }}{{- continue }}{{- end }}'
        '<|START_OF_TURN_TOKEN|>{{- if eq .Role "user" }}<|USER_TOKEN|>{{ .Content }}{{- else if eq .Role '
        '"assistant" }}<|CHATBOT_TOKEN|>{{- if .Content }}{{ .Content }}{{- end }}{{- end }}<|END_OF_TURN_TOKEN|>'
        "{{- end }}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
    ),
    "alfred": "{{- range .Messages }}<start_{{ .Role }}>{{ .Content }}<end_message>\n{{- end }}<start_assistant>",
    "closed with a line's end alone": "{{- range .Messages }}{{ .Role }}: {{ .Content }}\n{{ end }}",
    "an end that only blanks make": "{{- range .Messages }}{{ .Role }}: {{ .Content }} {{ end }}",
    "the answer's name in a variable's field": "{{ .Prompt }} {{ $.Response }}<|end|>",
    "the answer only where there is one": "{{ if .Response }}{{ .Prompt }}{{ end }}",
}

OPEN = {
    "the kind of the tests": TEMPLATES["open"],
    "llama3.1, llama3.2": (
        "{{- if or .System .Tools }}<|start_header_id|>system<|end_header_id|>\n{{- if .System }}\n\n{{ .System }}"
        "{{- end }}{{- if .Tools }}You have tools.{{ range .Tools }}{{ . }}{{ end }}{{- end }}<|eot_id|>\n{{- end }}"
        + LAST
        + '{{- if eq .Role "user" }}<|start_header_id|>user<|end_header_id|>\n{{- if and $.Tools $last }}{{ $.Tools }}'
        "{{ .Content }}<|eot_id|>{{- else }}\n\n{{ .Content }}<|eot_id|>{{- end }}{{ if $last }}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{{ end }}"
        '{{- else if eq .Role "assistant" }}<|start_header_id|>assistant<|end_header_id|>\n{{- if .ToolCalls }}'
        '{{ range .ToolCalls }}{"name": "{{ .Function.Name }}"}{{ end }}{{- else }}\n\n{{ .Content }}{{- end }}'
        '{{ if not $last }}<|eot_id|>{{ end }}{{- else if eq .Role "tool" }}ipython{{ .Content }}{{- end }}{{- end }}'
    ),
    "qwen2.5, with an older form beside it": (
        "{{- if .Messages }}{{- if or .System .Tools }}<|im_start|>system\n{{- if .System }}\n{{ .System }}{{- end }}"
        "<|im_end|>\n{{ end }}" + LAST + '{{ if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ if .Content }}{{ .Content }}'
        "{{- else if .ToolCalls }}<tool_call>{{ range .ToolCalls }}{{ .Function.Name }}{{ end }}</tool_call>{{- end }}"
        '{{ if not $last }}<|im_end|>\n{{ end }}{{- else if eq .Role "tool" }}<|im_start|>user\n{{ .Content }}'
        '<|im_end|>\n{{ end }}{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant\n{{ end }}{{- end }}'
        "{{- else }}{{- if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}{{ if .Prompt }}"
        "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}<|im_start|>assistant\n{{ end }}{{ .Response }}"
        "{{ if .Response }}<|im_end|>{{ end }}"
    ),
    "qwen3, which thinks": (
        "{{- $lastUserIdx := -1 -}}{{- range $idx, $msg := .Messages -}}"
        '{{- if eq $msg.Role "user" }}{{ $lastUserIdx = $idx }}{{ end -}}{{- end }}'
        "{{- if or .System .Tools }}<|im_start|>system\n{{ if .System }}{{ .System }}\n\n{{ end }}<|im_end|>\n{{ end }}"
        + LAST
        + '{{- if eq .Role "user" }}<|im_start|>user\n{{ .Content }}\n{{- if and $.IsThinkSet (eq $i $lastUserIdx) }}'
        '{{- if $.Think -}}{{- " "}}/think{{- else -}}{{- " "}}/no_think{{- end -}}{{- end }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n'
        "{{ if (and $.IsThinkSet (and .Thinking (or $last (gt $i $lastUserIdx)))) -}}<think>{{ .Thinking }}</think>\n"
        "{{ end -}}{{ if .Content }}{{ .Content }}{{- end }}{{ if not $last }}<|im_end|>\n{{ end }}"
        '{{- end }}{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant\n'
        "{{ if and $.IsThinkSet (not $.Think) -}}<think>\n\n</think>\n\n{{ end -}}{{ end }}{{- end }}"
    ),
    "deepseek-r1": (
        "{{- if .System }}{{ .System }}{{ end }}\n" + LAST + '{{- if eq .Role "user" }}<|User|>{{ .Content }}'
        '{{- else if eq .Role "assistant" }}<|Assistant|>{{- if and $.IsThinkSet (and $last .Thinking) -}}<think>\n'
        "{{ .Thinking }}\n</think>{{- end }}{{ .Content }}{{- if not $last }}<|end|>{{- end }}{{- end }}"
        '{{- if and $last (ne .Role "assistant") }}<|Assistant|>{{- if and $.IsThinkSet (not $.Think) -}}<think>\n\n'
        "</think>\n\n{{ end }}{{- end -}}{{- end }}"
    ),
    "the length counted in the place": (
        "{{ range $i, $m := .Messages }}<|{{ $m.Role }}|>{{ $m.Content }}{{ if not (eq (len (slice $.Messages $i)) "
        "1) }}<|im_end|>{{ end }}{{ end }}"
    ),
    "smollm2, chatml of the older kind": (
        "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}{{ if .Prompt }}<|im_start|>user\n"
        "{{ .Prompt }}<|im_end|>\n{{ end }}<|im_start|>assistant\n{{ .Response }}<|im_end|>\n"
    ),
    "llama3 of the older kind": (
        "{{ if .System }}<|start_header_id|>system<|end_header_id|>\n\n{{ .System }}<|eot_id|>{{ end }}{{ if .Prompt }}"
        "<|start_header_id|>user<|end_header_id|>\n\n{{ .Prompt }}<|eot_id|>{{ end }}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{{ .Response }}<|eot_id|>"
    ),
    "gemma of the older kind": (
        "<start_of_turn>user\n{{ if .System }}{{ .System }} {{ end }}{{ .Prompt }}<end_of_turn>\n"
        "<start_of_turn>model\n{{ .Response }}<end_of_turn>\n"
    ),
    "an older one without the answer": "[INST] {{ .System }} {{ .Prompt }} [/INST]",
    "comments and raw texts": (
        "{{- /* mine */ -}}{{ range .Messages }}{{ `<|` }}{{ .Role }}|>{{ .Content }}{{ end }}{{/* no more */}}"
    ),
}

UNKNOWN = {
    "none": "",
    "what is shown where there is none": "{{ .Prompt }}",
    "no text of the chat": "hello",
    "only the answer": "{{ .Response }}",
    "jinja": TEMPLATES["jinja"],
    "jinja that leaves it open": (
        "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
        "{% if not loop.last %}<|end|>{% endif %}{% endfor %}"
    ),
    "jinja without a text": "{% include 'chat_template.jinja' %}",
    "a function of another program": "{{ range .Messages }}{{ .Content | trim }}{{ end }}",
    "a field of another program": "{{ range .Messages }}{{ .Text }}{{ end }}",
    "it depends on thinking": "{{ range .Messages }}{{ .Content }}{{ end }}{{ if .Think }}<think>{{ end }}",
    "it depends on the system": "{{ range .Messages }}{{ .Content }}{{ end }}{{ if .System }}!{{ end }}",
    "no end": "{{ range .Messages }}{{ .Content }}",
    "one end too many": "{{ .Messages }}{{ end }}",
    "an action that is not closed": "{{ range .Messages }}{{ .Content {{ end }}",
    "a template within": '{{ define "a" }}{{ .Prompt }}{{ end }}{{ template "a" . }}',
    "deeper than anyone writes": "{{ if .Messages }}" * 50 + "{{ end }}" * 50,
    "parentheses without end": "{{ if " + "(" * 5_000 + ".Messages" + ")" * 5_000 + " }}{{ end }}",
    "work without end": "{{ range $a := .Messages }}" * 12
    + "{{ .Content }}"
    + "{{ range $.Messages }}{{ end }}" * 99
    + "{{ end }}" * 12,
    "a text without end": '{{ $a := printf "%s%s" .System .System }}'
    + '{{ $a = printf "%s%s" $a $a }}' * 60
    + "{{ range .Messages }}{{ .Content }}{{ end }}",
    "longer than anyone writes": "{{ .Prompt }}" + "x" * 200_000,
}


@pytest.mark.parametrize("name", CLOSED)
def test_a_template_that_ends_the_turn_is_closed(name: str) -> None:
    assert last_turn(CLOSED[name]) is LastTurn.CLOSED


@pytest.mark.parametrize("name", OPEN)
def test_a_template_that_ends_in_the_answer_is_open(name: str) -> None:
    assert last_turn(OPEN[name]) is LastTurn.OPEN


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_cannot_be_judged_for_sure_is_unknown(name: str) -> None:
    assert last_turn(UNKNOWN[name]) is LastTurn.UNKNOWN


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("end", ["\n", " ", "<|im_end|>"])
def test_whatever_follows_the_answer_closes_it_but_in_the_older_kind_which_is_cut_there(name: str, end: str) -> None:
    older = ".Messages" not in OPEN[name]
    assert last_turn(OPEN[name] + end) is (LastTurn.OPEN if older else LastTurn.CLOSED)


MESSAGES = [Struct(Role="user", Content="a"), Struct(Role="assistant", Content="b")]
DATA = {"Messages": MESSAGES, "System": "s", "Empty": "", "Number": 3}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("a {{- .System -}} b", "asb"),
        ("a {{ .System }} b", "a s b"),
        ("a\n\n{{- /* a comment }} */ -}}\n\nb", "ab"),
        ("{{ .Nothing }}", "<no value>"),
        ("{{ true }}{{ 3 }}", "true3"),
        (r'{{ "a\n\"b\"" }}', 'a\n"b"'),
        (r"{{ `a\n` }}", r"a\n"),
        ("{{ if .Empty }}1{{ else if .Nothing }}2{{ else if .System }}3{{ else }}4{{ end }}", "3"),
        ("{{ with .System }}{{ . }}{{ else }}none{{ end }}", "s"),
        ("{{ with $x := .Empty }}{{ $x }}{{ else }}none{{ end }}", "none"),
        ("{{ range .Messages }}{{ .Role }} {{ end }}", "user assistant "),
        ("{{ range $i, $m := .Messages }}{{ $i }}{{ $m.Content }}{{ end }}", "0a1b"),
        ("{{ range $m := .Messages }}{{ $m.Content }}{{ end }}", "ab"),
        ("{{ range .Messages }}{{ break }}{{ end }}x", "x"),
        ('{{ range .Messages }}{{ if eq .Role "user" }}{{ continue }}{{ end }}{{ .Content }}{{ end }}', "b"),
        ("{{ range .Nothing }}x{{ else }}none{{ end }}", "none"),
        ("{{ $x := 1 }}{{ range .Messages }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ $x := 1 }}{{ range .Messages }}{{ $x := 2 }}{{ end }}{{ $x }}", "1"),
        ("{{ (index .Messages 1).Content }}", "b"),
        ("{{ len .Messages }}{{ len .System }}{{ .Messages | len }}", "212"),
        ("{{ len (slice .Messages 1) }}{{ len (slice .Messages 0 2) }}", "12"),
        ('{{ slice "abcd" 1 3 }}', "bc"),
        ('{{ and .System .Empty }}|{{ or .Empty "x" }}|{{ not .Empty }}', "|x|true"),
        ("{{ and .Nothing (index .Messages 9) }}", "<no value>"),
        ("{{ or .System (index .Messages 9) }}", "s"),
        ('{{ eq .System "a" "s" }}{{ ne .System "a" }}', "truetrue"),
        ("{{ lt 1 2 }}{{ ge 1 2 }}{{ le 2 2 }}{{ gt (len .Messages) 1 }}", "truefalsetruetrue"),
        ('{{ printf "%s-%d-%v%%" .System .Number .System }}', "s-3-s%"),
        ('{{ print "a" "b" }}', "ab"),
        ('{{ json "a<b" }}', '"a\\u003cb"'),
        ("{{ $.System }}{{ range .Messages }}{{ $.System }}{{ end }}", "sss"),
    ],
)
def test_what_go_would_write(template: str, text: str) -> None:
    assert render(parse(template), DATA) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{",
        "{{ }}",
        "{{ .System",
        "{{ .System-}}",
        "{{ (.System }}",
        "{{ .System) }}",
        "{{ .System | }}",
        "{{ .System .Empty }}",
        "{{ nosuch }}",
        "{{ $x }}",
        "{{ $x = 1 }}",
        "{{ $x, $y := .Messages }}",
        "{{ range $a, $b, $c := .Messages }}{{ end }}",
        "{{ range .System }}{{ end }}",
        "{{ range .Messages }}{{ .Nothing }}{{ end }}",
        "{{ .System.Field }}",
        "{{ .Messages }}",
        "{{ index .Messages 2 }}",
        "{{ slice .Messages 3 }}",
        "{{ eq .System 1 }}",
        "{{ eq .System }}",
        "{{ lt true false }}",
        '{{ printf "%q" .System }}',
        '{{ printf "%s" }}',
        '{{ printf "x" .System }}',
        "{{ break }}",
        "{{ else }}",
        "{{ if .System }}{{ else }}{{ else }}{{ end }}",
        '{{ "unclosed }}',
        "{{ if }}x{{ end }}",
    ],
)
def test_what_go_would_refuse_or_no_template_needs(template: str) -> None:
    with pytest.raises(GoTemplateError):
        render(parse(template), DATA)


WORDS = """{{ }} {{- -}} range if else end .Messages .Content $i := , ( ) | eq len slice `a` ` /* */ 1 break {% %} $.
with nil "a" é"""


@settings(deadline=None)
@given(st.lists(st.sampled_from([*WORDS.split(), " ", "\n"]), max_size=25).map("".join))
def test_no_text_is_more_than_unknown(text: str) -> None:
    assert last_turn(text) in LastTurn
