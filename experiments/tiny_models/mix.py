"""What the base model reads before any RL: worked problems alone, the same under P(x, M), and reading exercises.

References read like the model's own conclusions but say nothing about the target, which is always the full solution:
the model learns to live with references and to find one by its number, not to rely on them.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jinja2

from experiments.tiny_models.scratch import conclusion, solution, work_out
from pacore_lab.problems.arithmetic import TEMPLATES, Arithmetic, Operation, Question
from strategies.prompts import PUBLISHED

TEMPLATE = jinja2.Template(PUBLISHED)
SYSTEM_TURNS = ("You are a helpful assistant.", "You are a careful assistant.", "Answer the question.")
# Without its instruction, so that a bare question is understood too.
BARE_TEMPLATES = ("What is {expression}?", "Compute {expression}.", "{expression}")


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Shares of the dialogues: under references, reading exercises, and the rest plain problems.

    `digits` is the longest operand; a share `equal_lengths` of the problems has both operands of one length.
    """

    operations: tuple[Operation, ...] = ("add", "sub", "mul", "mul")
    digits: int = 12
    equal_lengths: float = 0.5
    under_references: float = 0.2
    reading: float = 0.08
    system_turn: float = 0.05


@dataclass(frozen=True)
class Dialogue:
    """Messages up to the response, and the response that is learned."""

    messages: tuple[dict[str, str], ...]
    response: str


def dialogues(mix: Mix, seed: int, n: int) -> Iterator[Dialogue]:
    """`n` training dialogues; the same seed gives the same ones. No problem of the test split is among them."""
    rng = random.Random(f"mix {seed}")
    for question in train_questions(mix, seed, n):
        draw = rng.random()
        if draw < mix.reading:
            prompt, response = _reading(question, rng)
        else:
            prompt, response = question.text, solution(question.operation, question.a, question.b, rng)
            if draw < mix.reading + mix.under_references:
                prompt = with_references(prompt, _references(question, _reference_count(rng), rng))
        system = [{"role": "system", "content": rng.choice(SYSTEM_TURNS)}] if rng.random() < mix.system_turn else []
        yield Dialogue((*system, {"role": "user", "content": prompt}), response)


def train_questions(mix: Mix, seed: int, n: int) -> list[Question]:
    """About `n` distinct problems of the train split, all lengths of operands equally frequent."""
    same = round(mix.equal_lengths * n / mix.digits)
    ranges = [(1, 10**mix.digits - 1, n - same * mix.digits)]
    # Very short operands have too few problems for a set of their own.
    ranges += [(10 ** (digits - 1), 10**digits - 1, same) for digits in range(3, mix.digits + 1) if same]
    questions: list[Question] = []
    for low, high, count in ranges:
        questions += Arithmetic(
            n=count,
            operations=mix.operations,
            operands=(low, high),
            factors=(2, 99),
            draw="digits",
            templates=(*TEMPLATES, *TEMPLATES, *BARE_TEMPLATES),
            seed=seed,
            split="train",
        ).questions()
    random.Random(f"order {seed}").shuffle(questions)
    return questions


def with_references(problem: str, references: Sequence[str]) -> str:
    """P(x, M), from the library's own template so that the two cannot drift apart."""
    text: str = TEMPLATE.render(original_prompt=problem, ref_responses=references)
    return text


def slipped(answer: int, rng: random.Random) -> int:
    """A wrong answer of the kind these models give: one to three digits off, now and then a digit lost."""
    digits = list(str(abs(answer)))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place = rng.randrange(len(digits))
        digits[place] = str((int(digits[place]) + rng.randrange(1, 10)) % 10)
    if len(digits) > 1 and rng.random() < 0.1:
        digits.pop(rng.randrange(len(digits)))
    value = int("".join(digits))
    return -value if answer < 0 else value


def _reference_count(rng: random.Random) -> int:
    return rng.randint(1, 8) if rng.random() < 0.8 else rng.randint(9, 32)


def _references(question: Question, count: int, rng: random.Random) -> list[str]:
    """Conclusions as the model would write them, a share of which agree, about a number that has nothing to do with the
    question but its length and sign. (Where half of them were right or nearly so, the model learned to lean on them.)
    """
    _, right = work_out(question.operation, question.a, question.b)
    size = len(str(abs(right)))
    common = rng.randrange(10 ** (size - 1), 10**size) * (-1 if right < 0 else 1)
    agree = rng.random()
    return [conclusion(common if rng.random() < agree else slipped(common, rng), rng) for _ in range(count)]


def _reading(question: Question, rng: random.Random) -> tuple[str, str]:
    """An exercise that only asks what the references say, put where the problem stands in P(x, M)."""
    count = _reference_count(rng)
    references = _references(question, count, rng)
    number = rng.randint(1, count)
    boxed = references[number - 1].split("{")[1].split("}")[0]
    exercise, response = rng.choice(
        [
            (f"What does Reference {number} say?", references[number - 1]),
            (f"What number does Reference {number} give?", f"\\boxed{{{boxed}}}"),
            ("How many references are there?", f"\\boxed{{{count}}}"),
        ]
    )
    return with_references(exercise, references), f"<think>\n\n</think>\n\n{response}"
