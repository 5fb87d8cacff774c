"""Problems from a file of JSON lines: the published client's format, or plain questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from pacore_lab.errors import DataError
from pacore_lab.types import ChatMessage, Problem, Prompt, text_of

ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, kw_only=True)
class JSONL:
    """One problem per line of `path` (UTF-8); blank lines and other keys are ignored. Two formats can be mixed freely:

    - the published client's (github.com/stepfun-ai/PaCoRe): `messages`, optionally `id` and
      `ground_truth: {"answer": ...}`; turns are kept as they are, including keys this lab does not know;
    - plain: `question`, optionally `answer` and `id`.

    A line without `id` becomes "req_{n}", where n counts problems from 0, as in the published client. An answer is text
    or a number. If it is missing, null or "", the problem runs ungraded.
    """

    path: str

    def __post_init__(self) -> None:
        if not isinstance(self.path, str):
            raise ValueError(f"problems.path is {self.path!r}; name a file of JSON lines")

    def load(self) -> list[Problem]:
        """All problems, with unique ids. Raises DataError: `path:line: what is wrong; how to fix it`."""
        problems: list[Problem] = []
        line_of: dict[str, int] = {}
        for number, line in self._lines():
            problem = self._problem(number, line, f"req_{len(problems)}")
            first = line_of.setdefault(problem.id, number)
            if first != number:
                self._refuse(number, f'id "{problem.id}" is already used on line {first}; make it unique')
            problems.append(problem)
        if not problems:
            raise DataError(f'{self.path}: holds no problems; write one per line, e.g. {{"question": "1 + 1 = ?"}}')
        return problems

    def _lines(self) -> Iterator[tuple[int, str]]:
        """The lines that are not blank, numbered from 1."""
        try:
            with Path(self.path).expanduser().open("rb") as file:
                for number, line in enumerate(file, start=1):
                    try:
                        text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                    except UnicodeDecodeError as error:
                        self._refuse(number, f"not UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8")
                    if text:
                        yield number, text
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DataError(f"{self.path}: {reason}; set problems.path to a readable file of JSON lines") from error

    def _problem(self, number: int, line: str, default_id: str) -> Problem:
        record = self._record(number, line)
        if "messages" in record:
            messages = self._messages(number, record["messages"])
            truth = record.get("ground_truth")
            if truth is not None and not isinstance(truth, dict):
                self._refuse(number, 'ground_truth is not an object; write {"answer": ...}, or leave it out')
            key, answer = "ground_truth.answer", (truth or {}).get("answer")
        elif "question" in record:
            question = record["question"]
            if not isinstance(question, str) or not question.strip():
                self._refuse(number, "question is not a text; write the question between double quotes")
            messages = (ChatMessage(role="user", content=question),)
            key, answer = "answer", record.get("answer")
        else:
            self._refuse(number, 'neither "messages" nor "question" here; give one of them (see problems/jsonl.py)')
        return Problem(
            id=self._id(number, record, default_id), messages=messages, answer=self._answer(number, line, key, answer)
        )

    def _record(self, number: int, line: str) -> dict[str, Any]:
        try:
            record = json.loads(line, parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            self._refuse(number, f"not JSON: {error.msg} at column {error.colno}; write one JSON object per line")
        except (ValueError, RecursionError) as error:  # NaN, an integer of 5000 digits, brackets 1000 deep
            self._refuse(number, f"not usable JSON: {str(error).partition(';')[0]}; write the value as text")
        if not isinstance(record, dict):
            self._refuse(number, f"a JSON {type(record).__name__}, not an object; write one {{...}} per line")
        if "\\ud" in line.lower() and _has_half_characters(record):
            self._refuse(number, r"half of a surrogate pair (\ud800-\udfff) stands alone; write the whole character")
        return record

    def _id(self, number: int, record: dict[str, Any], default: str) -> str:
        name = record.get("id")
        if name is None:
            return default
        if isinstance(name, bool) or not isinstance(name, (str, int)) or name == "":
            self._refuse(number, "id is neither a text nor an integer; correct it, or leave it out")
        return str(name)

    def _answer(self, number: int, line: str, key: str, answer: Any) -> str | None:
        if answer is None or answer == "":
            return None
        if isinstance(answer, float):  # as written: 3.1415926535897932384 has more digits than a float
            answer = json.loads(line, parse_float=str)
            for part in key.split("."):
                answer = answer[part]
        if isinstance(answer, bool) or not isinstance(answer, (str, int)):
            self._refuse(number, f"{key} is neither a text nor a number; write it as text, or leave it out")
        return str(answer)

    def _messages(self, number: int, messages: Any) -> Prompt:
        if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
            self._refuse(number, 'messages is not a list of turns; write [{"role": "user", "content": "..."}]')
        for place, turn in enumerate(messages):
            role, content = turn.get("role"), turn.get("content")
            if role not in ROLES:
                self._refuse(number, f"messages[{place}].role is {_short(role)}; use one of {', '.join(ROLES)}")
            if content is None and role == "assistant":
                continue  # a turn that only calls tools
            if isinstance(content, list):
                if not all(_is_part(part) for part in content):
                    self._refuse(
                        number,
                        f'messages[{place}].content: a part is malformed; write {{"type": "text", "text": "..."}}',
                    )
            elif not isinstance(content, str):
                self._refuse(number, f"messages[{place}].content is {_short(content)}; give a text or a list of parts")
        asked = [turn for turn in messages if turn["role"] == "user"]
        if not asked:
            self._refuse(number, 'no turn has role "user"; add the question as one')
        if not text_of(asked[-1]["content"]).strip():
            self._refuse(number, "the last user turn holds no text; put the question there")
        return tuple(cast(list[ChatMessage], messages))

    def _refuse(self, number: int, problem: str) -> NoReturn:
        raise DataError(f"{self.path}:{number}: {problem}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _is_part(part: Any) -> bool:
    return isinstance(part, dict) and (part.get("type", "text") != "text" or isinstance(part.get("text"), str))


def _has_half_characters(record: dict[str, Any]) -> bool:
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _short(value: Any) -> str:
    text = "missing" if value is None else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
