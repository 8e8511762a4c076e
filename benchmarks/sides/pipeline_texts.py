"""The pipeline files that our side reads, as text. ``salt`` goes into every template, so that no text comes twice.

Otherwise a cache of compiled templates would answer for the second and every later load.
"""

from __future__ import annotations

from sides.shapes import LIMIT, contended_steps, lane_steps

_HEAD = "version: 1\nname: {name}\ninputs: {{query: {{type: string, required: true}}}}\nsteps:\n"
_LIST_HEAD = "version: 1\nname: {name}\ninputs: {{words: {{type: list, required: true}}}}\nsteps:\n"


def chain(steps: int, salt: str = "") -> str:
    """Return one step after the other; each one's prompt holds the answer of the one before."""
    lines = [f'  s{salt}0: {{agent: editor, prompt: "{{{{ inputs.query }}}}"}}']
    lines += [
        f'  s{salt}{index}: {{agent: editor, prompt: "{{{{ steps.s{salt}{index - 1} }}}}"}}'
        for index in range(1, steps)
    ]
    return _file(_HEAD.format(name="chain"), lines, f"{{{{ steps.s{salt}{steps - 1} }}}}")


def fan(width: int, salt: str = "") -> str:
    """Return one step, ``width`` written steps beside each other, and one whose prompt holds all their answers."""
    lines = [f'  first{salt}: {{agent: editor, prompt: "{{{{ inputs.query }}}}"}}']
    leaves = [f"b{salt}{index}" for index in range(width)]
    lines += [f'  {leaf}: {{agent: editor, prompt: "{{{{ steps.first{salt} }}}}"}}' for leaf in leaves]
    every = " ".join(f"{{{{ steps.{leaf} }}}}" for leaf in leaves)
    lines.append(f'  last: {{agent: editor, prompt: "{every}"}}')
    return _file(_HEAD.format(name="fan"), lines, "{{ steps.last }}")


def mapped(salt: str = "") -> str:
    """Return one step, a map over the input list, and a step whose prompt holds all its answers."""
    lines = [
        f'  first: {{agent: editor, prompt: "{salt} {{{{ inputs.words | length }}}}"}}',
        '  leaf: {agent: editor, needs: [first], foreach: inputs.words, prompt: "{{ item }}"}',
        "  last: {agent: editor, prompt: \"{{ steps.leaf | join(' ') }}\"}",
    ]
    return _file(_LIST_HEAD.format(name="mapped"), lines, "{{ steps.last }}")


def streamed(width: int, salt: str = "") -> str:
    """Return a map over a list that the step before it is still writing."""
    shape = f'{{words: "list[string](1..{width})"}}'
    lines = [
        f'  first: {{agent: editor, prompt: "{salt} {{{{ inputs.query }}}}", output: {shape}}}',
        '  leaf: {agent: editor, foreach: steps.first.words, prompt: "{{ item }}"}',
        "  last: {agent: editor, prompt: \"{{ steps.leaf | join(' ') }}\"}",
    ]
    return _file(_HEAD.format(name="streamed"), lines, "{{ steps.last }}")


def stagger() -> str:
    """Return the two lanes."""
    steps = lane_steps()
    lines = [_after(name, before) for name, before, _ in steps]
    followed = {before for _, before, _ in steps}
    ends = " ".join(f"{{{{ steps.{name} }}}}" for name, _, _ in steps if name not in followed)
    return _file(_HEAD.format(name="stagger"), lines, ends)


def contended() -> str:
    """Return more ready steps than places, the ones on the longest way to the end last in the file."""
    steps = contended_steps()
    text = _file(_HEAD.format(name="contended"), [_after(name, before) for name, before in steps], "{{ steps.chain0 }}")
    return text.replace("steps:\n", f"concurrency: {LIMIT}\nsteps:\n", 1)


def _after(name: str, before: str | None) -> str:
    source = f"steps.{before}" if before else "inputs.query"
    return f'  {name}: {{agent: editor, prompt: "{{{{ {source} }}}}"}}'


def _file(head: str, lines: list[str], result: str) -> str:
    return "\n".join([head.rstrip("\n"), *lines, f'result: "{result}"', ""])


BLOCK_STEPS = 10
_BLOCK = """\
  plan{n}:
    agent: planner
    needs: [{before}]
    prompt: |
      Part {n} of the question, seen from side {salt}.

      {{{{ inputs.query }}}}
  research{n}:
    agent: researcher
    foreach: steps.plan{n}.questions
    as: question
    concurrency: 4
    on_error: skip
    prompt: |
      Topic: {{{{ inputs.query }}}}

      Question: {{{{ question }}}} ({salt})
  critique{n}:
    agent: critic
    prompt: |
      Question: {{{{ inputs.query }}}}

      Findings {salt}:
      {{% for finding in steps.research{n} %}}
      {{% for fact in finding.key_facts %}}
      - {{{{ fact }}}}
      {{% endfor %}}
      {{% endfor %}}

      How well do the findings answer the question?
  refine{n}:
    when: inputs.rounds > 0 and steps.critique{n}.score < inputs.threshold
    repeat:
      max: inputs.rounds
      until: steps.judge.score >= inputs.threshold
      score: steps.judge.score
      keep: best
      steps:
        revise:
          agent: researcher
          prompt: |
            Question {salt}: {{{{ inputs.query }}}}

            Gaps:
            {{{{ (previous.judge if previous else steps.critique{n}).issues | bullets }}}}
        judge:
          agent: critic
          prompt: |
            Findings {salt}:
            {{% for finding in steps.research{n} %}}
            {{{{ finding.key_facts | bullets }}}}
            {{% endfor %}}
            {{{{ steps.revise.key_facts | bullets }}}}
  route{n}:
    choose:
      prompt: "Is this long or short, {salt}? {{{{ steps.critique{n}.issues | join(', ') }}}}"
      options:
        long: {{description: There is much to say., steps: [essay{n}]}}
        short: {{description: There is little to say., steps: [note{n}]}}
  essay{n}:
    agent: editor
    retry: {{attempts: 3, on: [unavailable, busy, timeout]}}
    timeout: {{total: 120, idle: 30}}
    prompt: |
      Question: {{{{ inputs.query }}}}

      Facts {salt}:
      {{% for finding in steps.research{n} %}}
      {{{{ finding.key_facts | bullets }}}}
      {{% endfor %}}
      {{% if steps.refine{n} %}}
      {{{{ steps.refine{n}.revise.key_facts | bullets }}}}
      {{% endif %}}
  note{n}:
    agent: editor
    max_tokens: 120
    prompt: "In one sentence, {salt}: {{{{ inputs.query }}}}"
  close{n}:
    agent: editor
    temperature: 0.2
    prompt: |
      {{% if steps.essay{n} is skipped %}}{{{{ steps.note{n} }}}}{{% else %}}{{{{ steps.essay{n} }}}}{{% endif %}}
      Finish part {n}, {salt}.
"""


def mixed(steps: int, salt: str = "") -> str:
    """Return what people write: plans, maps, loops, choices, conditions; a loop's own steps are counted, too."""
    blocks, rest = divmod(steps, BLOCK_STEPS)
    if rest:
        raise ValueError(f"a multiple of {BLOCK_STEPS} steps, please, not {steps}")
    head = (
        "version: 1\nname: mixed\ndescription: A long report in parts.\n"
        "inputs:\n  query: {type: string, required: true, description: The question.}\n"
        "  rounds: {type: integer, default: 1, minimum: 0, maximum: 5}\n"
        "  threshold: {type: number, default: 0.7, minimum: 0, maximum: 1}\n"
        "defaults: {temperature: 0.3, timeout: {total: 300}}\nsteps:\n"
    )
    body = "".join(
        _BLOCK.format(n=number, salt=salt or "a", before=f"close{number - 1}" if number else "")
        for number in range(blocks)
    )
    parts = "\n".join(f"  {{{{ steps.close{number} }}}}" for number in range(blocks))
    return f"{head}{body}result: |\n{parts}\n"
