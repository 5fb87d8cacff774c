"""P(x, M): how the next round's prompt shows the messages of a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jinja2

from pacore_lab.types import ChatMessage, Message, Problem, Prompt, text_of

# The wire format the published checkpoint was trained on (arXiv 2601.05593, Table 6). Every byte counts.
PUBLISHED = """\
You are given a problem and a list of reference responses. Your job is to analyze these references and provide your own response.

Original Problem:
{{ original_prompt }}

Reference Responses:
{% for response in ref_responses %}
Reference {{ loop.index }}:
{{ response }}
{% endfor %}

Now, based on the original problem and reference responses above, please provide your own comprehensive solution.
"""  # noqa: E501

UNNUMBERED = PUBLISHED.replace("Reference {{ loop.index }}:", "Reference:")
UNLABELLED = PUBLISHED.replace("Reference {{ loop.index }}:\n", "")
COUNTED = PUBLISHED.replace(
    "Reference {{ loop.index }}:",
    "Reference {{ loop.index }} ({{ counts[loop.index0] }} of {{ total }} responses):",
)
CRITICISED = PUBLISHED.replace(
    "please provide your own comprehensive solution.",
    "first criticize each reference in turn: say which of its steps are right, which are wrong or unproven, and why. "
    "Then provide your own comprehensive solution.",
)


@dataclass(frozen=True, kw_only=True)
class Template:
    """Renders `template` (Jinja2) into the last user turn; the other turns stay unchanged.

    It is given `original_prompt`, `ref_responses` (the messages' texts), `counts` (how many trajectories each message
    was made from) and `total` (how many trajectories they were all made from).

    Model text is inserted as data: `{{ x }}` in a response arrives literally. Without messages the prompt is the
    unmodified problem. If the turn is a list of parts, its text parts are the problem; the others follow the text.
    Raises ValueError for a conversation without a user turn.
    """

    template: str = PUBLISHED

    @cached_property
    def _compiled(self) -> jinja2.Template:
        return jinja2.Environment().from_string(self.template)

    def __call__(self, problem: Problem, messages: Sequence[Message]) -> Prompt:
        if not messages:
            return problem.messages
        turns = list(problem.messages)
        last = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=None)
        if last is None:
            raise ValueError(f"problem {problem.id} has no user turn to put the references into")
        text = self._compiled.render(
            original_prompt=text_of(turns[last]["content"]),
            ref_responses=[message.text for message in messages],
            counts=[len(message.sources) for message in messages],
            total=len({source for message in messages for source in message.sources}),
        )
        turns[last] = _with_text(turns[last], text)
        return tuple(turns)


def _with_text(turn: ChatMessage, text: str) -> ChatMessage:
    content = turn["content"]
    others = [part for part in content if part.get("type", "text") != "text"] if isinstance(content, list) else []
    shaped: str | list[dict[str, Any]] = [{"type": "text", "text": text}, *others] if others else text
    return {**turn, "content": shaped}


def published() -> Template:
    """The published prompt."""
    return Template()


def unnumbered() -> Template:
    """The published prompt without the references' numbers."""
    return Template(template=UNNUMBERED)


def unlabelled() -> Template:
    """The published prompt with only an empty line before each reference."""
    return Template(template=UNLABELLED)


def with_counts() -> Template:
    """The published prompt with each reference's count of trajectories, for strategy/compaction=dedupe."""
    return Template(template=COUNTED)


def critique() -> Template:
    """The published prompt, asking for a critique of each reference before the solution."""
    return Template(template=CRITICISED)
