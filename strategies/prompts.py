"""P(x, M): how the next round's prompt shows the messages of a round."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta

from pacore_lab.types import ChatMessage, Message, Problem, Prompt, text_of

_ENVIRONMENT = jinja2.Environment()

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

VARIABLES = ("original_prompt", "ref_responses", "counts", "total")

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
    Raises ValueError for a template that cannot be read, and for a conversation without a user turn.
    """

    template: str = PUBLISHED

    def __post_init__(self) -> None:
        check("strategy.prompt.template", self.template, VARIABLES)

    @cached_property
    def _compiled(self) -> jinja2.Template:
        return _ENVIRONMENT.from_string(self.template)

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


def from_file(*, path: str | None, digest: str | None = None) -> Template:
    """The template in a text file. digest: what `sha256` of the file begins with; a run folder keeps it.

    Raises ValueError for a file that cannot be read, that is not a template, or that has changed since.
    """
    if path is None:
        raise ValueError("strategy.prompt.path is not set; name a text file, strategy.prompt.path=FILE")
    try:
        data = Path(path).read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ValueError(f"strategy.prompt.path={path} cannot be read ({reason}); name a text file") from None
    if digest and not hashlib.sha256(data).hexdigest().startswith(digest):
        raise ValueError(f"strategy.prompt.path={path} is no longer the file of this run; bring its old text back")
    check(f"strategy.prompt.path={path}", text, VARIABLES)
    return Template(template=text)


def check(key: str, template: str, variables: Sequence[str]) -> None:
    """Raises ValueError for text that is not a Jinja2 template, or that uses a variable it is not given."""
    try:
        unknown = meta.find_undeclared_variables(_ENVIRONMENT.parse(template)) - {*variables}
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"{key}, line {error.lineno}: {error.message}; a prompt is a Jinja2 template") from None
    if unknown:
        raise ValueError(f"{key} uses {min(unknown)!r}; a prompt is given {', '.join(variables)}")


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
