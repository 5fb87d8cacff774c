"""Measures what a compaction (arXiv 2601.05593, equation 2) passes on: how much of the text, and whose answers."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pacore_lab.grading.answers import boxes
from pacore_lab.interfaces import Grader
from pacore_lab.types import Completion, Message, Round, Trajectory
from pacore_lab.votes import winners


@dataclass(frozen=True, kw_only=True, slots=True)
class Passed:
    """What the messages of a round kept of its trajectories.

    characters: length of the trajectories that did not fail, reasoning and content. passed: length of the messages made
    from them; passed / characters is the compaction ratio.
    answers: number of trajectories with an answer. kept: number of those whose answer survived (`passed_on`).
    majority: share of the most frequent answers (several if they tie) that survived, from any trajectory; None if there
    is no answer, or if some were lost and the grader cannot tell which answers are the same.
    """

    characters: int
    passed: int
    answers: int
    kept: int
    majority: float | None


async def passed_on(
    rounds: Sequence[Round], trajectories: Mapping[str, Trajectory], grader: Grader
) -> list[dict[str, Any]]:
    """`Passed` for each round but the last, whose messages nobody is shown, as JSON values; the first is round 1.

    trajectories: the trajectories of the rounds, by id. A trajectory's answer survives if a message that names it as a
    source

    - gives the same answer itself: the grader extracts an equivalent one from its text; or,
    - if it has several sources or no answer of its own, quotes it: some spelling of the answer in this round is in the
      text, in a box or standing alone (not as part of a longer number, word or formula).

    So a summary that reaches another answer than its only source has lost that answer, even if it mentions it.
    """
    return [asdict(await _passed(done, trajectories, grader)) for done in rounds[:-1]]


async def _passed(done: Round, known: Mapping[str, Trajectory], grader: Grader) -> Passed:
    usable = [known[name] for name in done.trajectories if known[name].error is None]
    answers = {each.id: answer for each in usable if (answer := grader.extract(each)) is not None}
    own = [message for message in done.messages if not known.keys() & {*message.sources} - {*done.trajectories}]
    said = [(message, _alone(message, grader)) for message in own]
    kept = {name for message, answer in said for name in message.sources if answers.get(name, "") == answer}
    majority: float | None = 1.0 if answers else None
    if len(kept) < len(answers):  # comparing may need a worker process: only if spelling has not settled it
        classes = await _classes([*answers.values(), *(answer for _, answer in said)], grader)
        kept |= _also_kept(answers, said, classes)
        majority = _majority(answers, kept, classes)
    return Passed(
        characters=sum(len(each.completion.reasoning) + len(each.content) for each in usable),
        passed=sum(len(message.text) for message in own),
        answers=len(answers),
        kept=len(kept),
        majority=majority,
    )


def _alone(message: Message, grader: Grader) -> str | None:
    """The answer in a message's text, read as if it were a trajectory."""
    return grader.extract(Trajectory(id="", index=0, completion=Completion(content=message.text)))


async def _classes(answers: Iterable[str | None], grader: Grader) -> dict[str, int | None]:
    """The equivalence class of each spelling."""
    spellings = list(dict.fromkeys(answer for answer in answers if answer is not None))
    return dict(zip(spellings, await grader.classes(spellings), strict=True))


def _also_kept(
    answers: Mapping[str, str], said: Sequence[tuple[Message, str | None]], classes: Mapping[str, int | None]
) -> set[str]:
    """Ids of the trajectories whose answer survived in another spelling or as a quotation."""
    spelled: dict[int | None, list[str]] = {}
    for answer in dict.fromkeys(answers.values()):
        spelled.setdefault(classes[answer], []).append(answer)
    kept = set()
    for message, own in said:
        quotes = own is None or len(message.sources) > 1
        survives: dict[str, bool] = {}
        for name in set(message.sources) & set(answers):
            answer = answers[name]
            if answer not in survives:
                same = [answer] if classes[answer] is None else spelled[classes[answer]]
                equal = own is not None and classes[own] is not None and classes[own] == classes[answer]
                survives[answer] = equal or (quotes and any(_quoted(spelling, message.text) for spelling in same))
            if survives[answer]:
                kept.add(name)
    return kept


def _majority(answers: Mapping[str, str], kept: set[str], classes: Mapping[str, int | None]) -> float | None:
    votes = [classes[answer] for answer in answers.values()]
    survived = {classes[answers[name]] for name in kept}
    best = winners(votes)
    return statistics.fmean(votes[place] in survived for place in best) if best else None


def _quoted(answer: str, text: str) -> bool:
    standing = rf"(?<![\w./^\\{{+-])(?<!\d,){re.escape(answer)}(?![\w/^{{}}+%!-])(?![.,]\d)"
    return re.search(standing, text) is not None or any(box == answer for box, _ in boxes(text))
