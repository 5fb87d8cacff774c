"""A judge: a model asked for verdicts, on any backend. Every raw verdict is kept."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pacore_lab.errors import LabError, require_count
from pacore_lab.interfaces import Backend
from pacore_lab.sampling.dispatch import Dispatcher
from pacore_lab.sampling.names import SampleName, canonical, digest
from pacore_lab.sampling.store import Store
from pacore_lab.types import ChatMessage, Model, Problem, Trajectory, conclusion, text_of

Fields: TypeAlias = Mapping[str, Mapping[str, Any]]
"""The names of a verdict's fields, each with its JSON schema."""
TEXT = {"type": "string"}
"""The schema of a free-text field."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A judge's reply. text: after its own `</think>`. error: why there is none. id: of the raw text in the store."""

    text: str
    tokens: int
    id: str
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Judge:
    """The judge's backend and model, as for a run, and its own trajectory store, `store`.

    Each question (prompt, judge, sampling parameters) is asked once. Afterwards its verdict comes from the store, in
    later runs too, and its tokens count as if it had just been given.
    concurrency: questions in flight at once. Raises ValueError if it is below 1.
    """

    backend: Backend
    model: Model
    store: str
    concurrency: int = 64
    _dispatchers: list[Dispatcher] = field(init=False, repr=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        require_count("grader.judge.concurrency", self.concurrency)

    @property
    def version(self) -> str:
        asked = json.loads(canonical(self.model.sampling))
        params = json.dumps({key: value for key, value in asked.items() if value is not None})
        return f"judge {self.model.name} ({self.backend.fingerprint}, {params})"

    async def start(self) -> None:
        """Raises LabError, with a message that names the judge."""
        try:
            await self.backend.start()
            store = await Store.open(self.store)
        except LabError as error:
            raise LabError(f"grader.judge: {error}") from error
        self._dispatchers.append(
            Dispatcher(backend=self.backend, store=store, params=self.model.sampling, concurrency=self.concurrency)
        )

    async def ask(self, question: str, fields: Fields) -> Verdict:
        """Ask one question. A backend with schemas is bound to the fields; others are trusted to give them.

        Raises EngineDead or StoreError. A question that cannot be answered gives a verdict with `error`.
        """
        (dispatcher,) = self._dispatchers
        schema = None
        if self.backend.capabilities.schema:
            whole = {"properties": fields, "required": list(fields), "additionalProperties": False}
            schema = json.dumps({"type": "object", **whole})
        prompt = (ChatMessage(role="user", content=question),)
        name = SampleName(
            fingerprint=self.backend.fingerprint,
            prompt=digest(prompt),
            params=canonical(dispatcher.params, schema),
            seed=0,
            problem="judge",
            repeat=0,
            index=0,
        )
        priority = dispatcher.priority(1)
        await dispatcher.slots.acquire(priority)
        flight = dispatcher.board(name, prompt, priority, schema=schema)
        try:
            await asyncio.wait([flight.task])  # cancelling one asker leaves the verdict to the others
            said = flight.task.result()
        finally:
            dispatcher.leave(flight)
            dispatcher.slots.release()
        error = said.error or (None if said.conclusion.strip() else "empty verdict")
        if error is None and said.truncated:
            error = "verdict truncated at max_tokens"
        return Verdict(text=said.conclusion, tokens=said.completion.generated_tokens, id=said.id, error=error)

    async def close(self) -> None:
        for dispatcher in self._dispatchers:
            await dispatcher.store.close()
        self._dispatchers.clear()
        await self.backend.close()


def judged_text(trajectory: Trajectory) -> str | None:
    """The part of a response a judge may see: the text after the last `</think>`, None if the thinking never ended."""
    text = conclusion(trajectory.content)
    return None if text.lstrip().startswith("<think>") or not text.strip() else text.strip()


def no_answer(problem: Problem, trajectory: Trajectory) -> tuple[float | None, str] | None:
    """Score and reason if there is nothing to ask a judge about, else None."""
    if not problem.gradable:
        return None, "no ground truth"
    if trajectory.error:
        return None, trajectory.error
    if trajectory.truncated:
        return 0.0, "no answer: truncated at max_tokens"
    if judged_text(trajectory) is None:
        return 0.0, "no answer: nothing after the thinking"
    return None


def filled(prompt: str, **values: str) -> str:
    """`prompt` with each {name} replaced by its value, in one pass: braces in a value stay as they are."""
    names = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({names})\}}", lambda found: values[found[1]], prompt)


def yes_or_no(value: str | None) -> float | None:
    """1.0 for yes, 0.0 for no, None for anything else."""
    return {"yes": 1.0, "no": 0.0}.get((value or "").lower().rstrip("."))


def question_of(problem: Problem) -> str:
    """The text of the last user turn."""
    return text_of(next(turn["content"] for turn in reversed(problem.messages) if turn["role"] == "user"))


def fields_of(text: str, names: Sequence[str]) -> dict[str, str]:
    """The named fields of a verdict, from its last JSON object with any of them, else from its lines `name: value`.

    The last line of a name counts. Values lose Markdown's stars and quotes; missing names are left out.
    """
    decoder = json.JSONDecoder()
    for start in sorted((found.start() for found in re.finditer(r"\{", text)), reverse=True)[:64]:
        try:
            value, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and any(name in value for name in names):
            return {name: _plain(value[name]) for name in names if name in value}
    alternatives = "|".join(map(re.escape, names))
    line = rf"^[ \t*_`\"'#>-]{{0,20}}({alternatives})[*_`\"']{{0,3}}[ \t]*[:=](.*)$"
    lines = re.finditer(line, text, re.MULTILINE | re.IGNORECASE)
    lowered = {name.lower(): name for name in names}
    return {lowered[found[1].lower()]: _plain(found[2]) for found in lines}


def _plain(value: Any) -> str:
    return str(value).strip().strip("*_`\"'").strip()
