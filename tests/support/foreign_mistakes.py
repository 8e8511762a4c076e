"""Mistakes of people who come from other languages and tools, one a row, as in ``pipeline_mistakes``."""

from __future__ import annotations

from pipeline_mistakes import EDITOR, HEAD, OTHER, Mistake, at_top, in_step, whole


def when(name: str, expression: str, says: str) -> Mistake:
    """Return a mistake in the condition of the step ``a``."""
    return in_step(name, f"{EDITOR}when: >-\n  {expression}", says, more=OTHER)


def prompt(name: str, text: str, says: str) -> Mistake:
    """Return a mistake in the prompt of the step ``a``."""
    lines = "\n".join(f"  {line}" for line in text.splitlines())
    return in_step(name, f"agent: editor\nprompt: |\n{lines}", says, more=OTHER)


def key(word: str, says: str) -> Mistake:
    """Return a key that other tools have, in the step ``a``."""
    return in_step(f"the key {word} of a step", f"{EDITOR}§{word}: 3", says, more=OTHER)


KEYS = [
    key("race", "join: first"),
    key("max_iterations", "repeat: {max: N"),
    key("then", "the step itself is what runs"),
    key("else", "when: not (…)"),
    key("before", "'needs' in the step that comes later"),
    key("save_as", "what a step gives is 'steps.NAME'"),
    key("collect", "a step with 'foreach' gives the list"),
    key("stream", "every answer streams"),
    key("memory", "'conversation' beside 'steps'"),
    key("budget", "beside 'steps'"),
    key("goal", "the prompt of the step's agent"),
    key("top_p", "of the sampling"),
    key("title", "write 'description'"),
    key("provider", "write 'backend'"),
    key("cases", "write 'choose'"),
    key("script", "write 'tool'"),
]
EXPRESSIONS = [
    when("and as in C", "inputs.n > 1 §&& inputs.n < 3", "write 'and'"),
    when("or as in C", "inputs.n > 1 §|| inputs.n < 3", "write 'or'"),
    when("not as in C", "§!inputs.query", "write 'not'"),
    when("a condition as in C", "inputs.n > 1 §? true : false", "write A if condition else B"),
    when("an elvis operator", "inputs.query §?: 'x'", "write x or y"),
    when("a null coalescing operator", "inputs.query §?? 'x'", "write x or y"),
    when("optional chaining", "inputs.query§?.length", "write a dot alone"),
    when("one equals sign", "inputs.query §= 'x'", "write =="),
    when("one equals sign before true", "inputs.query §= true", "true needs no comparison"),
    when("three equals signs", "inputs.n §=== 3", "write =="),
    when("not equal as in JavaScript", "inputs.n §!== 3", "write !="),
    when("not equal as in SQL", "inputs.n §<> 3", "write !="),
    when("at least the wrong way round", "inputs.n §=> 3", "write >="),
    when("AND in capitals", "inputs.n > 1 §AND inputs.n < 3", "write 'and'"),
    when("a comparison in words", "inputs.n is §greater than 3", "write >"),
    when("contains", "inputs.query §contains 'x'", "write 'part' in x"),
    when("a method of JavaScript", "inputs.query.§includes('x')", "write 'part' in x"),
    when("a size as in Java", "inputs.tags.§size() > 3", "write x | length"),
    when("a length as in JavaScript", "§inputs.tags.length > 3", "write inputs.tags | length"),
    when("null", "inputs.query != §null", "write none"),
    when("a text without quotes", "inputs.query == §praise", "a text stands in quotes: 'praise'"),
    when("is null", "inputs.query is not §null", "write none"),
    when("a condition that begins with if", "§if inputs.n > 3", "'if' does not begin an expression"),
    when("then", "inputs.n > 3 §then", "leave it out"),
    when("a variable of a shell", "§$inputs.n > 3", "leave it out"),
    when("an expression of GitHub Actions", "§${{ inputs.n > 3 }}", "leave it and the braces out"),
    when("a status function of GitHub Actions", "§always()", "'on_error'"),
    when("an output of GitHub Actions", "§needs.b == 'x'", "write steps.b"),
    when("a parameter of another tool", "§params.n > 3", "write inputs.n"),
    when("the environment", "§env.HOME == 'x'", "declare 'HOME' under 'inputs'"),
    when("a number that begins with a dot", "inputs.n > §.5", "write 0.5"),
    when("a number in percent", "inputs.n > 50§%", "write 0.5"),
    when("a filter of Liquid", "inputs.tags | join§: ', '", "write join(', ')"),
    when("a filter of Liquid with two values", "inputs.query | replace§: 'a', 'b'", "write replace(…)"),
    when("a filter without brackets", "inputs.n | round §2", "write round(2)"),
    when("a filter of a text without brackets", "inputs.tags | join §', '", "write join(', ')"),
    when("rounding as in JavaScript", "inputs.n.§toFixed(1) > 1", "write x | round(2)"),
    when("emptiness as in Java", "inputs.tags.§isEmpty()", "write not x"),
    when("a test in words", "inputs.n is §above 3", "write >"),
    when("matches", "inputs.query §matches 'x'", "write 'part' in x"),
    when("a text without end", "inputs.query == §'x", "write ' behind it"),
    when("quotes of a word processor", "inputs.query == §“x”", "write straight quotes"),
    when("an open bracket", "§(inputs.n > 3", "write ) behind what it holds"),
    when("a bracket too many", "inputs.n > 3§)", "leave it out"),
    when("a list that is open", "inputs.tags§[0", "write ] behind what it holds"),
    when("nothing to compare with", "inputs.n §>", "something is missing behind '>'"),
    when("a comma at the end", "inputs.n > 3§,", "leave it out"),
    when("a semicolon at the end", "inputs.n > 3§;", "leave it out"),
    when("a comment", "inputs.n > 3 §# at least three", "a comment stands between {# and #}"),
    when("two values side by side", "inputs.n §3", "an operator is missing"),
    when("an arrow", "inputs§->n", "write a dot"),
    when("two dots", "inputs§..n", "write one dot"),
    when("one brace of two at the end", "§{{ inputs.n > 3 }", "leave them out"),
]

TEMPLATES = [
    prompt("a method of JavaScript in a prompt", "Hello {{ inputs.query.§toUpperCase() }}", "write x.upper()"),
    prompt("a filter of Liquid for capitals", "Hello {{ inputs.query | §upcase }}", "write | upper"),
    prompt("a loop of another language", "{% §foreach q in inputs.tags %}\nx\n{% endforeach %}", "{% for item in"),
    prompt("elseif", "{% if inputs.n %}\nx\n{% §elseif inputs.query %}\ny\n{% endif %}", "write elif"),
    in_step("a list of one agent", "agent: §[editor]\nprompt: x", "write editor without brackets"),
    in_step("a decimal comma", EDITOR + "temperature: §0,7", "write 0.7"),
    in_step("a temperature in percent", EDITOR + "temperature: §70%", "write 0.7"),
    in_step("tokens in thousands", EDITOR + "max_tokens: §2k", "write 2000"),
    at_top("context in thousands", "defaults: {num_ctx: §8k}", "write 8192"),
    at_top("minutes of a budget", "budget: {seconds: §5m}", "write 300"),
    at_top("hours and minutes of a budget", "budget: {seconds: §1h30m}", "write 5400"),
    at_top("minutes for a first token", "defaults: {timeout: {first_token: §2 min}}", "write 120"),
    in_step("minutes of a step", EDITOR + "timeout: §5min", "write 300"),
    in_step("calls with their name", EDITOR + "concurrency: §4 calls", "write 4"),
    in_step("tokens with their name", EDITOR + "max_tokens: §500 tokens", "write 500"),
    in_step("thousands apart", EDITOR + "max_tokens: §'1,000'", "write 1000"),
    prompt("half of the sign of a tag", "{% set x = inputs.query §%\n{{ x }}", "write %}"),
    prompt("half of the sign behind a condition", "{% if inputs.query §%\nx\n{% endif %}", "write %}"),
    in_step("a range with a hyphen", "agent: editor\noutput: {s: string(§10-120)}\nprompt: x", "write (10..120)"),
    in_step("a range with a comma", "agent: editor\noutput:\n  n: number(§0, 1)\nprompt: x", "write (0..1)"),
    in_step("a range in words", "agent: editor\noutput: {n: integer(§1 to 10)}\nprompt: x", "write (1..10)"),
    in_step("a least value with a sign", "agent: editor\noutput: {n: integer(§>=1)}\nprompt: x", "write (1..)"),
    prompt("an if without end", "Hello\n§{% if inputs.n %}\nmore\n{{ steps.b }}", "write {% endif %}"),
    prompt(
        "an if without end in a loop",
        "{% for tag in inputs.tags %}\n§{% if tag %}\n{{ tag }}\n{% endfor %}",
        "write {% endif %} before that",
    ),
    prompt("an end of nothing", "Hello {% §endif %}", "write {% if … %} before it"),
    prompt("the end of Go templates", "{% if inputs.n %}x{% §end %}", "write {% endif %}"),
    prompt("the wrong end", "{% for tag in inputs.tags %}x{% §endif %}", "write {% endfor %}"),
    prompt("else if", "{% if inputs.n %}x{% else §if inputs.query %}y{% endif %}", "write elif"),
    prompt("elsif", "{% if inputs.n %}x{% §elsif inputs.query %}y{% endif %}", "write elif"),
    prompt("an if without condition", "{% §if %}x{% endif %}", "write {% if steps.a %}"),
    prompt("a loop with of", "{% for tag §of inputs.tags %}x{% endfor %}", "write {% for item in steps.a %}"),
    prompt("a foreach", "{% §foreach tag in inputs.tags %}x{% endfor %}", "write {% for item in steps.a %}"),
    prompt("a break", "{% for tag in inputs.tags %}{% §break %}{% endfor %}", "choose the items beforehand"),
    prompt("a set without equals sign", "{% set x §3 %}{{ x }}", "write {% set x = … %}"),
    prompt("&& in a tag", "{% if inputs.n §&& inputs.query %}x{% endif %}", "write 'and'"),
    prompt("a condition of C in a hole", "{{ inputs.n §? 'a' : 'b' }}", "write A if condition else B"),
    prompt("a hole without end", "Hello §{{ inputs.query and more", "write }} behind it"),
    prompt("a hole with one brace at its end", "Hello {{ inputs.query §} and more", "write }}"),
    prompt("a hole with the end of a tag", "Hello {{ inputs.query §%} and more", "write }}"),
    prompt("a tag with the end of a hole", "{% if inputs.n §}}x{% endif %}", "write %}"),
    prompt("an empty hole", "Hello {{ §}}", "there is no expression here"),
    prompt("three braces", "Hello §{{{ inputs.query }}}", "write {{ … }}"),
    prompt("an if of Handlebars", "§{{#if inputs.n}}x{{/if}}", "write {% if … %}"),
    prompt("a field of Go templates", "Hello {{ §.query }}", "write inputs.query"),
    prompt("an if in a hole", "{{ §if inputs.n }}x", "write it between {% and %}"),
    prompt("a filter is missing", "{{ inputs.query §| }}", "something is missing behind '|'"),
    prompt("an f-string", "{{ §f'{inputs.n}' }}", "join the parts with ~"),
    prompt("a quote in a text", "{{ 'it'§s' }}", "put it in the other quotes"),
    prompt("a wrong argument of a filter", "{{ inputs.query | §chunks(size=3000) }}", "write characters=…"),
    prompt("an argument too many", "{{ inputs.query | §upper(1) }}", "leave the brackets out"),
    prompt("letters of a filter the wrong way round", "{{ inputs.tags | §jion(', ') }}", "did you mean 'join'?"),
    prompt("a filter of Ansible", "{{ inputs.tags | §to_nice_json }}", "write | json"),
    prompt("a function of Python", "{{ §len(inputs.tags) }}", "write x | length"),
    prompt("a clock", "{{ §now() }}", "declare an input"),
    prompt("the output of a step as n8n has it", "{{ §outputs.b }}", "write steps.b"),
]

TAIL = 'result: "{{ steps.a }}"\n'


def lines(name: str, step: str, says: str, *, tail: str = TAIL) -> Mistake:
    """Return a mistake in the lines below ``steps``."""
    return whole(name, f"{HEAD}steps:\n{step}\n{tail}", says)


YAML = [
    lines(
        "quotes in quotes",
        '  a:\n    agent: editor\n    prompt: "Say §"hello" first."',
        "put the text in single quotes",
    ),
    lines(
        "text behind quotes", '  a:\n    agent: editor\n    prompt: "hello§" and more', "put the text in single quotes"
    ),
    lines("an apostrophe", "  a:\n    agent: editor\n    prompt: 'it§'s here'", "write '' for a quote in it"),
    lines("a quote without end", '  a:\n    agent: editor\n    prompt: §"Say hello', 'write " at its end'),
    lines(
        "an apostrophe without end",
        "  a:\n    agent: editor\n    prompt: §'Say hello",
        "write ' at its end",
        tail="result: x\n",
    ),
    lines("no space behind a colon", "  a:\n    agent:§editor\n    prompt: x", "write 'agent: editor'"),
    lines("no space in the last line", "  a:\n    prompt: x\n    agent:§editor", "write 'agent: editor'"),
    lines("no space in braces", "  a: {agent:§editor, prompt: x}", "write 'agent: editor'"),
    whole(
        "no space in the first line",
        "version:§1\nname: demo\nsteps: {a: {agent: editor, prompt: x}}\nresult: x\n",
        "write 'version: 1'",
    ),
    lines("no colon", "  a:\n    §agent editor\n    prompt: x", "write 'agent: editor'"),
    lines("no colon behind a name", "  §a\n    agent: editor\n    prompt: x", "write 'a:'"),
    lines("a colon in a prompt", "  a:\n    agent: editor\n    prompt: Write this§: a poem", "in quotes"),
    lines(
        "a colon in a prompt in braces", "  a: {agent: editor, prompt: Write this§: a poem}", "put the value in quotes"
    ),
    lines("a comma is missing", "  a: {agent: editor prompt§: x}", "a comma before 'prompt'"),
    lines("a line too far in", "  a:\n    agent: editor\n      §prompt: x", "indent it like 'agent'"),
    lines("a line too far out", "  a:\n    agent: editor\n   §prompt: x", "indent it by 4 spaces"),
    lines(
        "a text below a bar that is not indented",
        "  a:\n    agent: editor\n    prompt: |\n    §Write",
        "further than 'prompt'",
    ),
    lines(
        "a text that begins on the line of the bar",
        "  a:\n    agent: editor\n    prompt: | §Write",
        "begin it on the next line",
    ),
    lines(
        "a text whose first line is further in",
        "  a:\n    agent: editor\n    prompt: |\n        Write\n      §more",
        "indent all lines of the text alike",
    ),
    lines(
        "a text without a bar",
        "  a:\n    agent: editor\n    prompt:\n      §Write of this\n      note: that",
        "prompt: |",
    ),
    lines("a tab in a text", "  a:\n    agent: editor\n    prompt: |\n§\tWrite", "indent with spaces"),
    lines("an at sign", "  a:\n    agent: §@editor\n    prompt: x", "put it in single quotes"),
    lines("a backtick", "  a:\n    agent: editor\n    prompt: §`x`", "put it in single quotes"),
    lines("a percent sign", "  a:\n    agent: editor\n    prompt: §%s", "put it in single quotes"),
    lines("a star", "  a:\n    agent: editor\n    prompt: §*bold* text", "begins with '*' in quotes"),
    lines(
        "a tag of templates without quotes",
        "  a: {agent: editor, prompt: x}",
        "begins with '{%' in quotes",
        tail="result: §{% if steps.a %}x{% endif %}\n",
    ),
    lines(
        "text behind a template",
        "  a:\n    agent: editor\n    prompt: {§{ inputs.query }} and more",
        "begins with '{{' in quotes",
    ),
    lines(
        "not as in C without quotes",
        "  a:\n    agent: editor\n    prompt: x\n    when: §!inputs.query",
        "write 'not inputs.query'",
    ),
    lines(
        "a list in braces that is open",
        "  a: {agent: editor, prompt: x, needs: §[b}\n  b: {agent: editor, prompt: x}",
        "write ] behind",
    ),
    lines("braces that are open", "  a: §{agent: editor, prompt: x\n  b: {agent: editor, prompt: x}", "write } behind"),
    lines("a brace too many", "  a: {agent: editor, prompt: x}§}", "remove it"),
    lines(
        "a backslash in double quotes",
        '  a:\n    agent: editor\n    prompt: "C:§\\docs"',
        "put the value in single quotes",
    ),
    lines(
        "quotes of a word processor around a text",
        "  a:\n    agent: editor\n    prompt: §“Say: hello”",
        "write straight quotes",
    ),
    lines("a no-break space", "  a:\n    agent:§\u00a0editor\n    prompt: x", "write an ordinary space"),
    lines("a wide colon", "  a:\n    agent§\N{FULLWIDTH COLON}editor\n    prompt: x", "write ':' and a space"),
    lines(
        "commas of an enum in braces",
        "  a: {agent: editor, prompt: x, output: {v: §enum(yes, no, maybe)}}",
        "put the whole value in quotes",
    ),
    lines(
        "bounds of a list in braces",
        "  a: {agent: editor, prompt: x, output: {v: §list[string](1..3), w: string}}",
        "put it in quotes",
    ),
    lines(
        "a comma in a prompt in braces",
        "  a: {agent: editor, prompt: §Write this, then that}",
        "put the whole value in quotes",
    ),
    lines("more behind the end", "  a: {agent: editor, prompt: x}\n...", "remove the line '...'", tail="§result: x\n"),
]

LEVELS = [
    lines("a prompt at the level of its step", "  a:\n    agent: editor\n  §prompt: x", "indent it further, below 'a'"),
    lines(
        "a shape at the level of its step",
        "  a:\n    agent: editor\n    prompt: x\n  §output: {v: string}",
        "below 'a'",
    ),
    lines("inputs at the level of their step", "  a:\n    use: answer\n  §with: {query: x}", "below 'a'"),
    lines("a prompt in the first column", "  a:\n    agent: editor\n§prompt: x", "indent it below the step 'a'"),
    lines(
        "the result among the steps",
        "  a: {agent: editor, prompt: x}\n  §result: '{{ steps.a }}'",
        "in the first column",
        tail="",
    ),
    lines(
        "the result inside a step",
        "  a:\n    agent: editor\n    prompt: x\n    §result: x",
        "in the first column",
        tail="",
    ),
    lines(
        "steps in the first column",
        "§a:\n  agent: editor\n  prompt: x\nb:\n  agent: editor\n  prompt: x",
        "indent them below it",
    ),
    lines(
        "until beside its loop",
        "  a:\n    repeat:\n      steps: {b: {agent: editor, prompt: x}}\n    §until: steps.b",
        "below 'repeat'",
    ),
    lines(
        "until among the steps of its loop",
        "  a:\n    repeat:\n      steps:\n        b: {agent: editor, prompt: x}\n        §until: steps.b",
        "write it beside its 'steps'",
    ),
    lines(
        "steps beside their loop",
        "  a:\n    repeat: {max: 3}\n    §steps: {b: {agent: editor, prompt: x}}",
        "below 'repeat'",
    ),
    lines("options beside their choice", "  a:\n    choose: {prompt: x}\n    §options: {b: y, c: z}", "below 'choose'"),
    lines(
        "a text with a colon that is not indented",
        "  a:\n    agent: editor\n    prompt: |\n    §Write: it",
        "further than 'prompt'",
    ),
    lines("a wrong name of a required input", "  a: {use: answer, with: {§quary: x}}", "did you mean 'query'?"),
    lines("another name of a required input", "  a: {use: answer, with: {§text: x}}", "did you mean 'query'?"),
    lines(
        "another name of a required argument", "  a: {tool: count_words, with: {§string: x}}", "did you mean 'text'?"
    ),
]

VALUES = [
    whole(
        "a version in quotes",
        "version: §'1'\nname: demo\nsteps: {a: {agent: editor, prompt: x}}\nresult: x\n",
        "write 1 without quotes",
    ),
    in_step("a number in quotes", EDITOR + "temperature: §'0.7'", "write 0.7 without quotes"),
    in_step("a whole number in quotes", EDITOR + "max_tokens: §'100'", "write 100 without quotes"),
    in_step("a template for a number", EDITOR + "max_tokens: §'{{ inputs.n }}'", "templates stand in prompts"),
    in_step("a time with its unit", EDITOR + "timeout: §30s", "write 30"),
    in_step("a time in minutes", EDITOR + "timeout: §2m", "write 120"),
    in_step("attempts as a number", EDITOR + "retry: §3", "write {attempts: 3}"),
    in_step("one need without brackets", EDITOR + "needs: §b", "write [b]", more=OTHER),
    in_step("an empty prompt by a comment", "agent: editor\n§prompt: # later", "the prompt is empty"),
    in_step("no agent behind its key", "§agent:\nprompt: x", "'agent' is empty"),
    in_step("a prompt as a list", "agent: editor\nprompt:\n  §- Write\n  - it", "write '|' behind 'prompt:'"),
    in_step("an agent in its step", "agent: §{role: writer}\nprompt: x", "declare it under 'agents'"),
    in_step("an output as one word", EDITOR + "output: §string", "give it a field"),
    in_step("an output as a list", EDITOR + "output: §[title, body]", "'FIELD: string'"),
    lines("a step without anything", "  a: {agent: editor, prompt: x}\n  b:§", "write what it does below it"),
    at_top("yes for true", "inputs: {q: {required: §yes}}", "write true"),
    at_top("true in quotes", "inputs: {q: {required: §'true'}}", "write true"),
    at_top("an input as its type", "inputs:\n  q: §string", "write 'q: {type: string}'"),
    at_top("an input as its default", "inputs:\n  q: §hello", "write 'q: {default: hello}'"),
    at_top("an input without anything", "inputs:\n  q:§", "write 'q: {}'"),
    at_top("inputs as a list", "inputs:\n  §- q", "write 'NAME: {}'"),
    whole(
        "steps as a list with names",
        HEAD + "steps:\n  §- name: a\n    agent: editor\n    prompt: x\nresult: x\n",
        "write 'NAME:' in the place of each '- '",
    ),
]

FOREIGN_MISTAKES = [*KEYS, *EXPRESSIONS, *TEMPLATES, *YAML, *LEVELS, *VALUES]

BEHIND = [
    in_step("an agent behind a temperature", "agent: §edtor\nprompt: x\ntemperature: §3", ""),
    in_step("a reference behind a time", "agent: editor\nprompt: '{{ §steps.zz }}'\ntimeout: §soon", ""),
    in_step("an agent behind samples", "agent: §edtor\nprompt: x\nsamples: §one", ""),
    in_step("a reference behind samples", "agent: editor\nprompt: '{{ §steps.zz }}'\nsamples: §1\nselect: vote", ""),
    in_step("an agent behind select", "agent: §edtor\nprompt: x\nsamples: 3\nselect: §bst", ""),
    in_step("a judge behind samples", EDITOR + "samples: §one\njudge: §jugde", ""),
    in_step(
        "an agent behind an output", "agent: §edtor\nprompt: x\noutput: §text", "", more=OTHER, result="{{ steps.b }}"
    ),
    in_step("an agent behind a list", "agent: §edtor\nprompt: x\nforeach: §3", "", more=OTHER, result="{{ steps.b }}"),
    in_step(
        "an agent behind a name",
        "agent: §edtor\nprompt: x\nforeach: inputs.tags\nas: §Item",
        "",
        more=OTHER,
        result="{{ steps.b }}",
    ),
    in_step("an agent behind an unknown key", "agent: §edtor\nprompt: x\n§frobnicate: 3", ""),
    in_step("an agent behind a bound", "repeat: {max: §[1], steps: {c: {agent: §edtor, prompt: x}}}", ""),
    in_step("an agent behind a key twice", "agent: §edtor\nprompt: x\n§prompt: y", ""),
    in_step(
        "much behind commas in braces",
        "{agent: §edtor, prompt: x, output: {v: §enum(a, b)}}",
        "",
        result="{{ §steps.zz }}",
    ),
    in_step(
        "much behind a template without quotes",
        "agent: §edtor\nprompt: {§{ §inputs.qery }}",
        "",
        result="{{ §steps.zz }}",
    ),
    in_step("an agent behind a misplaced key", "agent: §edtor", "", more="  §prompt: x\n"),
    in_step("an agent behind a name for not", "agent: §edtor\nprompt: x\nwhen: §!inputs.qery", ""),
    in_step("two signs in two keys", "agent: §edtor\nprompt: '{{ inputs.n §&& 1 }}'\nwhen: inputs.n §= 1", ""),
    Mistake(
        "several in tests, behind an agent",
        HEAD
        + "steps: {a: {agent: §edtor, prompt: x}}\nresult: '{{ steps.a }}'\ntests:\n"
        + "  one: {inputs: {§qery: x}, replies: {§b: x}, expect: {that: §steps.b}}\n  two: {expect: {§equals: 1}}\n",
        "",
    ),
    Mistake(
        "mistakes of meaning behind one of form in a used file",
        HEAD + "steps: {a: {use: part.yaml}}\nresult: '{{ steps.a }}'\n",
        "",
        {"part.yaml": "version: 1\nname: part\nsteps: {b: {agent: §edtor, prompt: x, temperature: §3}}\nresult: x\n"},
        "part.yaml",
    ),
]
"""Several mistakes of which one used to hide the others; each has its mark."""
