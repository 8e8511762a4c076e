"""What servers do with a last message of the assistant, in three kinds; each has the template that ``/api/show`` has.

``open``
    A template of Ollama's library that tests for the last message: the prompt ends in its text, the model goes on.
``closed``
    ChatML, which Ollama chooses for a GGUF without a template: the turn ends, and the model begins a new one.
``jinja``
    The GGUF's own template: ``llama-server`` leaves the turn open whatever that says, and its reply begins with the
    text that it was given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Turn: TypeAlias = Literal["open", "closed", "jinja"]

TEMPLATES: Mapping[Turn, str] = {
    "open": """{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
<|im_start|>{{ .Role }}
{{ .Content }}{{ if not (and $last (eq .Role "assistant")) }}<|im_end|>
{{ end }}
{{- if and $last (ne .Role "assistant") }}<|im_start|>assistant
{{ end }}
{{- end }}""",
    "closed": """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
""",
    "jinja": (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
}


def prompt_of(turn: Turn, messages: Sequence[Mapping[str, Any]]) -> str:
    """Return what a server of this kind makes of a chat."""
    texts = [f"<|im_start|>{message['role']}\n{message['content']}" for message in messages]
    if turn != "closed" and messages[-1]["role"] == "assistant":
        return "".join(f"{text}<|im_end|>\n" for text in texts[:-1]) + texts[-1]
    return "".join(f"{text}<|im_end|>\n" for text in texts) + "<|im_start|>assistant\n"


def said_before(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a last message of the assistant; "" if the last one is not the assistant's."""
    return str(messages[-1]["content"]) if messages and messages[-1]["role"] == "assistant" else ""
