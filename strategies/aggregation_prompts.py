"""P(x, M) of methods that differ from PaCoRe in their prompt: Mixture-of-Agents, AggLM and sequential revision.

The wording is ours; what MoA and AggLM tell the model, and in which turn, follows the papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import jinja2

from pacore_lab.types import ChatMessage, Message, Problem, Prompt
from strategies.prompts import Template, check

MOA = """\
Several models have already answered the user's latest query; their responses are listed below. Combine them into one \
response of higher quality. Weigh each of them critically: some of what they say may be biased or wrong. Do not repeat \
them; give a refined, accurate and complete reply of your own that is well structured.

Responses from models:
{%- for response in ref_responses %}
{{ loop.index }}. {{ response }}
{%- endfor %}"""

AGGLM = """\
A problem and {{ ref_responses | length }} candidate solutions to it follow. Any number of them may be right, perhaps \
none.

Problem:
{{ original_prompt }}
{% for response in ref_responses %}
Candidate {{ loop.index }}:
{{ response }}
{% endfor %}
Review the candidates, find and correct their mistakes, and reconcile what is right in them. Combine it, or solve the \
problem anew where none is of use, into one complete and correct solution.
"""

REVISE = """\
{{ original_prompt }}
{% for response in ref_responses %}
Your previous answer was:
{{ response }}
{% endfor %}
Check this answer step by step and look for mistakes. Then give a complete, revised answer to the problem: corrected \
where you found a mistake, the same where you found none.
"""


@dataclass(frozen=True, kw_only=True)
class SystemReferences:
    """Appends `template` (Jinja2; `ref_responses`) to the system turn, or adds one; the other turns stay unchanged.

    Mixture-of-Agents shows references in this way (arXiv 2406.04692, table 1). Model text is inserted as data. Without
    messages the prompt is the unmodified problem.
    """

    template: str = MOA

    def __post_init__(self) -> None:
        check("strategy.prompt.template", self.template, ("ref_responses",))

    @cached_property
    def _compiled(self) -> jinja2.Template:
        return jinja2.Environment().from_string(self.template)

    def __call__(self, problem: Problem, messages: Sequence[Message]) -> Prompt:
        if not messages:
            return problem.messages
        text = self._compiled.render(ref_responses=[message.text for message in messages])
        first, *others = problem.messages
        if first["role"] != "system":
            return (ChatMessage(role="system", content=text), *problem.messages)
        own = first["content"]
        whole = [*own, {"type": "text", "text": text}] if isinstance(own, list) else f"{own or ''}\n\n{text}".lstrip()
        return ({**first, "content": whole}, *others)


def moa() -> SystemReferences:
    """Aggregate and synthesize, in the system turn (arXiv 2406.04692)."""
    return SystemReferences()


def agglm() -> Template:
    """Review, reconcile, combine (arXiv 2509.06870)."""
    return Template(template=AGGLM)


def revise() -> Template:
    """Asks for a check and a revision of the previous answer (after arXiv 2408.03314, section 6, but untrained)."""
    return Template(template=REVISE)
