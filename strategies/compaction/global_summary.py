"""One bounded workspace distilled from a whole round: the global summary of PDR (arXiv 2510.01123)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pacore_lab.types import Message
from strategies.compaction.llm_summary import LLMSummary

INSTRUCTIONS = """\
You are given a problem and several responses to it. Distill them into one page of notes for somebody who will solve \
the problem again and cannot see them.

Original Problem:
{{ original_prompt }}

Responses:
{% for response in ref_responses %}
Response {{ loop.index }}:
{{ response }}
{% endfor %}

Note what the responses agree on, where they contradict one another and what speaks for either side, the intermediate \
results worth keeping, what is still open, and every final answer that was given, exactly as it is written, with the \
number of responses that gave it. Do not decide by that number. Use at most WORDS words.
"""


@dataclass(frozen=True, kw_only=True)
class GlobalSummary(LLMSummary):
    """One summary of all messages of `of`, with all their sources; otherwise like LLMSummary.

    If the summary cannot be used, there is no message, and the next round sees the bare problem.
    """

    instructions: ClassVar[str] = INSTRUCTIONS

    def _groups(self, messages: Sequence[Message]) -> list[Sequence[Message]]:
        return [messages] if messages else []
