"""What the base model reads before any RL: worked problems alone, the same under P(x, M), and reading exercises.

Under P(x, M) a problem is always solved as if it stood alone: its references are conclusions to another problem. So the
base model lives with references and can read them (the exercises), and nothing has ever taught it to use them.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jinja2

from experiments.tiny_models.scratch import box_of, response, search_solution, sum_conclusion, sum_solution
from pacore_lab.problems.arithmetic import TEMPLATES, Arithmetic
from pacore_lab.problems.search import LABELS, Hunt, Search
from strategies.prompts import PUBLISHED

TEMPLATE = jinja2.Template(PUBLISHED)
SYSTEM_TURNS = ("You are a helpful assistant.", "You are a careful assistant.", "Answer the question.")
MOST_REFERENCES = 32
ANSWER_IN = " Put the final answer"  # hints stand before it


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Shares of the dialogues: searches (the rest are sums), and of each, those under references and as exercises.

    digits: the longest summand. boxes: of the searches, [low, high]. copying: of the searches, those that only ask what
    is in a box. hinted: of the others, those whose text rules boxes out or names one to try. lucky: of the others,
    those whose box is made the right one, so that "yes" is seen often enough.
    """

    searches: float = 0.85
    digits: int = 5
    boxes: tuple[int, int] = (6, 12)
    hinted: float = 0.4
    copying: float = 0.08
    lucky: float = 0.3
    under_references: float = 0.2
    reading: float = 0.25
    system_turn: float = 0.03


@dataclass(frozen=True)
class Dialogue:
    """Messages up to the response, and the response that is learned."""

    messages: tuple[dict[str, str], ...]
    response: str


def dialogues(mix: Mix, seed: int, n: int) -> Iterator[Dialogue]:
    """About `n` training dialogues; the same seed gives the same ones. No problem of the test split is among them."""
    rng = random.Random(f"mix {seed}")
    made = [*_searches(mix, seed, round(n * mix.searches), rng), *_sums(mix, seed, n - round(n * mix.searches), rng)]
    rng.shuffle(made)
    for prompt, solution in made:
        system = [{"role": "system", "content": rng.choice(SYSTEM_TURNS)}] if rng.random() < mix.system_turn else []
        yield Dialogue((*system, {"role": "user", "content": prompt}), solution)


def with_references(problem: str, references: Sequence[str]) -> str:
    """P(x, M), from the library's own template so that the two cannot drift apart; a message keeps the blank lines that
    follow its </think>."""
    text: str = TEMPLATE.render(original_prompt=problem, ref_responses=[f"\n\n{each}" for each in references])
    return text


def _searches(mix: Mix, seed: int, n: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    sizes = range(mix.boxes[0], mix.boxes[1] + 1)
    hunts = [
        hunt for size in sizes for hunt in Search(n=n // len(sizes) + 1, boxes=size, seed=seed, split="train").hunts()
    ]
    rng.shuffle(hunts)
    for hunt, other in zip(hunts, [*hunts[1:], hunts[0]], strict=True):
        if rng.random() < mix.copying:
            yield _copying(hunt, rng)
            continue
        draw = rng.random()
        if draw < mix.reading:
            yield _exercise(hunt, rng)
            continue
        prompt, ruled_out, first = hunt.text, list[int](), None
        if rng.random() < mix.hinted:
            prompt, ruled_out, first = _hinted(hunt, rng)
        if draw < mix.reading + mix.under_references:
            prompt = with_references(prompt, _conclusions(other, rng))
        if first is None and rng.random() < mix.lucky:
            first = next(place for place, box in enumerate(hunt.boxes) if hunt.answer in box)
        yield prompt, search_solution(hunt, rng, ruled_out, first)


def _copying(hunt: Hunt, rng: random.Random) -> tuple[str, str]:
    """Only asks what is in a few of the boxes: finding a label and reading on is most of what a search needs."""
    listed = "".join(box_of(hunt, place) for place in range(len(hunt.boxes)))
    asked = rng.sample(range(len(hunt.boxes)), 4)
    labels = " ".join(LABELS[place] for place in asked)
    return f"Read {labels} in{listed}", response("", "".join(box_of(hunt, place) for place in asked))


def _hinted(hunt: Hunt, rng: random.Random) -> tuple[str, list[int], int | None]:
    """The text with what is known beforehand: boxes that it is not in, or one that it may be in (half of the time)."""
    wrong = [place for place, box in enumerate(hunt.boxes) if hunt.answer not in box]
    rng.shuffle(wrong)
    if rng.random() < 0.7:
        ruled_out = wrong[: rng.randint(1, len(wrong) - 1)]
        said = f" It is in none of {' '.join(LABELS[place] for place in ruled_out)}."
        return hunt.text.replace(ANSWER_IN, said + ANSWER_IN), ruled_out, None
    right = next(place for place, box in enumerate(hunt.boxes) if hunt.answer in box)
    first = rng.choice((right, wrong[0]))
    return hunt.text.replace(ANSWER_IN, f" It may be in {LABELS[first]}." + ANSWER_IN), [], first


def _conclusions(hunt: Hunt, rng: random.Random) -> list[str]:
    """Of as many solutions as a message set has, each of its own luck."""
    count = rng.randint(1, 8) if rng.random() < 0.5 else rng.randint(9, MOST_REFERENCES)
    return [search_solution(hunt, rng).split("</think>\n\n")[1] for _ in range(count)]


def _exercise(hunt: Hunt, rng: random.Random) -> tuple[str, str]:
    """Only asks what the references say, in the place of the problem in P(x, M)."""
    references = _conclusions(hunt, rng)
    kind = rng.randrange(3)
    if kind == 0:
        number = rng.randint(1, len(references))
        return with_references(f"What does Reference {number} say?", references), response("", references[number - 1])
    if kind == 1:
        said = next((each for each in references if each.startswith("yes")), "none.")
        return with_references("What does the reference say that says yes?", references), response("", said)
    tried = {each.split(": ")[1][0] for each in references}
    left = [label for label in LABELS[: len(hunt.boxes)] if label not in tried]
    asked = f"Boxes are A to {LABELS[len(hunt.boxes) - 1]}. Which has no reference tried?"
    return with_references(asked, references), response("", f"{rng.choice(left)}." if left else "none.")


def _sums(mix: Mix, seed: int, n: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Half of them with summands of one length: without these the model is a place short now and then."""
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
