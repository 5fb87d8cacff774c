"""What the base model reads before any RL: worked problems alone, the same problems under P(x, M), and exercises.

A problem under P(x, M) is solved as if it stood alone, and its references are conclusions to another problem, unless
its text orders the model to use them. So the base model can read references, and can continue from them when the
problem says so, but nothing has taught it to do so unasked.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jinja2

from experiments.tiny_models.scratch import (
    box_of,
    response,
    search_conclusion,
    search_solution,
    sum_conclusion,
    sum_solution,
)
from pacore_lab.problems.arithmetic import TEMPLATES, Arithmetic
from pacore_lab.problems.search import LABELS, Hunt, Search, generate
from strategies.prompts import PUBLISHED, Template

TEMPLATE = jinja2.Template(PUBLISHED)
SYSTEM_TURNS = ("You are a helpful assistant.", "You are a careful assistant.", "Answer the question.")
MOST_REFERENCES = 32
ANSWER_IN = " Put the final answer"
TOLD = " Go on from the references."


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Shares of the dialogues: searches (the rest are sums), and the kinds of search dialogue.

    digits: of the longest summand. boxes: per search, [low, high].
    copying, matching, judging, excluding, reading: exercises. told: under references to the same problem, with the
    order to continue from them. under_references: under references to another problem, without that order. The rest are
    bare problems.
    lucky: the share of these last two kinds that try the right box, so that "yes" is seen often enough.
    """

    searches: float = 0.85
    digits: int = 5
    boxes: tuple[int, int] = (4, 8)
    copying: float = 0.05
    matching: float = 0.03
    judging: float = 0.04
    excluding: float = 0.12
    reading: float = 0.12
    told: float = 0.2
    under_references: float = 0.15
    lucky: float = 0.5
    system_turn: float = 0.03


@dataclass(frozen=True)
class Dialogue:
    """The messages up to the response, and the response to learn."""

    messages: tuple[dict[str, str], ...]
    response: str


def dialogues(mix: Mix, seed: int, n: int) -> Iterator[Dialogue]:
    """About `n` training dialogues; the same seed gives the same ones. None has a problem of the test split."""
    rng = random.Random(f"mix {seed}")
    made = [*_searches(mix, seed, round(n * mix.searches), rng), *_sums(mix, seed, n - round(n * mix.searches), rng)]
    rng.shuffle(made)
    for prompt, solution in made:
        system = [{"role": "system", "content": rng.choice(SYSTEM_TURNS)}] if rng.random() < mix.system_turn else []
        yield Dialogue((*system, {"role": "user", "content": prompt}), solution)


def with_references(problem: str, references: Sequence[str]) -> str:
    """P(x, M), from the library's own template so that the two cannot drift apart. A message keeps the blank lines that
    follow its </think>."""
    text: str = TEMPLATE.render(original_prompt=problem, ref_responses=[f"\n\n{each}" for each in references])
    return text


def told() -> Template:
    """P(x, M) with the order to continue from the references in the problem's text, as the base model has read it."""
    ordered = f"original_prompt.replace({ANSWER_IN!r}, {TOLD + ANSWER_IN!r})"
    return Template(template=PUBLISHED.replace("original_prompt", ordered))


def _searches(mix: Mix, seed: int, n: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    sizes = range(mix.boxes[0], mix.boxes[1] + 1)
    hunts = [
        hunt for size in sizes for hunt in Search(n=n // len(sizes) + 1, boxes=size, seed=seed, split="train").hunts()
    ]
    rng.shuffle(hunts)
    exercises = {"copying": _copying, "matching": _matching, "judging": _judging, "excluding": _excluding}
    made = {**exercises, "reading": _reading, "told": _told}
    shares = [getattr(mix, kind) for kind in (*made, "under_references")]
    kinds = rng.choices((*made, "under_references", "alone"), (*shares, 1 - sum(shares)), k=len(hunts))
    for hunt, other, kind in zip(hunts, [*hunts[1:], hunts[0]], kinds, strict=True):
        if kind in made:
            yield made[kind](hunt, rng)
            continue
        right = next(place for place, box in enumerate(hunt.boxes) if hunt.answer in box)
        solution = search_solution(hunt, rng, first=right if rng.random() < mix.lucky else None)
        if kind == "under_references":
            yield with_references(hunt.text, _conclusions(other, rng)), solution
        else:
            yield hunt.text, solution


def _told(hunt: Hunt, rng: random.Random) -> tuple[str, str]:
    """References to this very problem, with a text that says to continue from them. The solution checks a find if there
    is one, else it tries an untried box. Half of the time finds are left out, or there would be little to exclude."""
    references = _conclusions(hunt, rng)
    if rng.random() < 0.5:
        references = [each for each in references if each.startswith("no")] or references
    found = next((place for says, place in map(_said, references) if says == "yes"), None)
    tried = {place for _, place in map(_said, references)}
    prompt = with_references(hunt.text.replace(ANSWER_IN, TOLD + ANSWER_IN), references)
    return prompt, search_solution(hunt, rng, tried if found is None else (), found)


def _copying(hunt: Hunt, rng: random.Random) -> tuple[str, str]:
    """Asks only for the contents of a few boxes: finding a label and reading on is most of what a search needs."""
    asked = rng.sample(range(len(hunt.boxes)), 4)
    labels = " ".join(LABELS[place] for place in asked)
    return f"Read {labels} in{_listed(hunt)}", response("", "".join(box_of(hunt, place) for place in asked))


def _matching(hunt: Hunt, rng: random.Random) -> tuple[str, str]:
    """Asks only for the boxes that begin with some numbers: a search's verdicts need to find a number again."""
    asked = rng.sample(hunt.boxes, 4)
    found = "".join(f" {number}" for box in asked for number in box)
    return f"Read on from{''.join(f' {box[0]}' for box in asked)} in{_listed(hunt)}", response("", found)


def _judging(hunt: Hunt, rng: random.Random) -> tuple[str, str]:
    """Asks only for verdicts, on one box's numbers: on their own, or after the text of the problem."""
    ends = [generate(number, hunt.constant, hunt.steps)[-1] for number in rng.choice(hunt.boxes)]
    ends = [hunt.ending if rng.random() < 0.4 else end for end in ends]
    verdicts = [f" {end} {'yes' if end == hunt.ending else 'no'}" for end in ends]
    around = hunt.text.split(ANSWER_IN)[0] if rng.random() < 0.6 else f"It is at {hunt.ending}."
    return f"{around} Judge", response(";".join(verdicts), "")


def _excluding(hunt: Hunt, rng: random.Random) -> tuple[str, str]:
    """Asks only for an untried box. Most boxes are tried: with many left, any guess would cost little. Half of the time
    the tried ones are listed, else references name them."""
    places = rng.sample(range(len(hunt.boxes)), len(hunt.boxes))
    left = places[: rng.randint(1, 3)]
    tried = places[len(left) :]
    solution = response(box_of(hunt, left[0]), f"{LABELS[left[0]]}.")
    if rng.random() < 0.5:
        return f"Read one that is none of {' '.join(LABELS[place] for place in tried)} in{_listed(hunt)}", solution
    tried += rng.choices(tried, k=rng.choice((0, 0, 1, 2, 4, 8, 16)))
    rng.shuffle(tried)
    numbers = [number for box in hunt.boxes for number in box]
    references = [search_conclusion(place, False, rng.choice(numbers)) for place in tried]
    return with_references(f"Read one that no reference has tried in{_listed(hunt)}", references), solution


def _reading(hunt: Hunt, rng: random.Random) -> tuple[str, str]:
    """Asks only what a reference says, in place of the problem in P(x, M)."""
    references = _conclusions(hunt, rng)
    if rng.random() < 0.5:
        number = rng.randint(1, len(references))
        return with_references(f"What does Reference {number} say?", references), response("", references[number - 1])
    said = next((each for each in references if each.startswith("yes")), "none.")
    return with_references("What does the reference say that says yes?", references), response("", said)


def _listed(hunt: Hunt) -> str:
    return "".join(box_of(hunt, place) for place in range(len(hunt.boxes)))


def _conclusions(hunt: Hunt, rng: random.Random) -> list[str]:
    """Conclusions of as many solutions as a message set has, each with its own luck."""
    count = rng.randint(1, 8) if rng.random() < 0.5 else rng.randint(9, MOST_REFERENCES)
    return [search_solution(hunt, rng).split("</think>\n\n")[1] for _ in range(count)]


def _said(conclusion: str) -> tuple[str, int]:
    """The conclusion's verdict, and the place of its box."""
    says, _, rest = conclusion.partition(": ")
    return says, LABELS.index(rest[0])


def _sums(mix: Mix, seed: int, n: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Half have summands of one length: without these the model is sometimes one place short."""
    lengths = range(3, mix.digits + 1)
    questions = [
        question
        for digits in lengths
        for low, count in ((1, n // (2 * len(lengths))), (10 ** (digits - 1), n // (2 * len(lengths)) + 1))
        if count
        for question in Arithmetic(
            n=count, operations=("add",), operands=(low, 10**digits - 1), templates=TEMPLATES, seed=seed, split="train"
        ).questions()
    ]
    for question in questions:
        prompt = question.text
        if rng.random() < mix.under_references:
            unrelated = rng.randrange(10 ** (len(str(question.a)) - 1), 10 ** len(str(question.a)))
            count = rng.randint(1, 8)
            prompt = with_references(prompt, [sum_conclusion(unrelated, rng) for _ in range(count)])
        yield prompt, sum_solution(question.a, question.b, rng)
