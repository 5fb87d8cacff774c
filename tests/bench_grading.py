"""Clustering 512 answers: ours against comparing in pairs with math-verify, the same classes. `make bench`.

The yardstick is what is usually done: every distinct string is parsed once and compared with one representative of each
class so far. Either side is a running process that has seen no answer before.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pacore_lab.grading import MathGrader, exact, numeric
from pacore_lab.grading.cache import Cache
from pacore_lab.grading.readers import Pool

ANSWERS = 512
# One line per answer, in spellings of models. math-verify and we agree on all of them: the traps are tested elsewhere.
FORMS = [
    ["42", r"\text{42}", " 42 ", "+42"],
    ["17", r"17\,", r"\mathbf{17}"],
    ["1024", "1,024", r"1{,}024", "2^{10}"],
    ["-3", "-3.0", "−3", r"-\frac{6}{2}"],
    ["0", "0.0", "-0"],
    ["100000", "100,000", r"10^5", r"100{,}000"],
    [r"\frac{1}{2}", "1/2", "0.5", r"\dfrac{1}{2}", r"\frac12", r"\tfrac{2}{4}"],
    [r"\frac{22}{7}", "22/7", r"\dfrac{22}{7}", r"\frac{44}{14}"],
    [r"-\frac{5}{3}", "-5/3", r"\frac{-5}{3}", r"-\dfrac53"],
    ["0.125", "1/8", r"\frac{1}{8}", ".125"],
    ["3.75", r"\frac{15}{4}", "15/4", r"3\frac{3}{4}"],
    [r"\sqrt{2}", r"\sqrt2", r"\frac{2}{\sqrt{2}}", "2^{1/2}"],
    [r"3\sqrt{2}", r"\sqrt{18}", r"3 \sqrt{2}", r"3\cdot\sqrt{2}"],
    [r"\frac{\sqrt{3}}{2}", r"\sqrt{3}/2", r"\dfrac{\sqrt{3}}{2}", r"\frac12\sqrt{3}"],
    [r"1+\sqrt{5}", r"\sqrt{5}+1", r"1 + \sqrt{5}", r"\left(1+\sqrt5\right)"],
    [r"\frac{1+\sqrt{5}}{2}", r"\dfrac{1+\sqrt{5}}{2}", r"\frac{1}{2}+\frac{\sqrt{5}}{2}"],
    [r"2\pi", r"2 \pi", "2π", r"\pi\cdot 2"],
    [r"\frac{\pi}{6}", r"\pi/6", r"\dfrac{\pi}{6}", r"\frac{1}{6}\pi"],
    [r"\pi^2", r"\pi^{2}", r"\pi\cdot\pi"],
    [r"\ln 2", r"\ln(2)", r"\ln{2}", r"\ln\left(2\right)"],
    [r"e^2", r"e^{2}", r"e \cdot e"],
    [r"2^{100}", r"2^{100} ", r"{2}^{100}"],
    ["(1,2)", "(1, 2)", r"\left(1,2\right)", r"(1,\,2)"],
    ["(2,1)", "(2, 1)", r"\left(2, 1\right)"],
    [r"(\frac{1}{2}, 3)", "(0.5, 3)", r"\left(\frac12,3\right)", r"(\dfrac{1}{2},3)"],
    ["[1,2]", "[1, 2]", r"\left[1,2\right]"],
    ["(1,2]", "(1, 2]", r"\left(1,2\right]"],
    [r"(-\infty,3)", r"(-\infty, 3)", r"\left(-\infty,3\right)"],
    [r"\{3,4,5\}", r"\{5,4,3\}", r"\left\{3, 4, 5\right\}"],
    ["7, 8", "8, 7", "7,8", r"7 \text{ and } 8"],
    ["x^2+2x+1", "(x+1)^2", r"x^{2}+2x+1", "1+2x+x^2", "x^2 + 2x + 1"],
    ["x^2-1", "(x-1)(x+1)", "(x+1)(x-1)", "x^2 - 1", "-1+x^2"],
    ["2n+1", "1+2n", "2n + 1", "2(n+1)-1"],
    [r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}", r"\dfrac{n(n+1)}{2}", "n(n+1)/2"],
    ["n!", "n! ", "(n)!"],
    ["ab+c", "c+ab", "ba+c"],
    [r"\frac{1}{x+1}", r"\dfrac{1}{x+1}", "1/(x+1)", r"(x+1)^{-1}"],
    [r"\sin x", r"\sin(x)", r"\sin{x}"],
    ["2^n", "2^{n}", r"2 \cdot 2^{n-1}"],
    [r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"],
]


def answers() -> list[str]:
    """512 of them; the frequencies of the forms fall off, as those of real votes do."""
    draw = random.Random(0)
    weights = [1 / (1 + place) ** 0.5 for place in range(len(FORMS))]
    return [draw.choice(form) for form in draw.choices(draw.sample(FORMS, len(FORMS)), weights, k=ANSWERS)]


# Each distinct string is parsed once and compared with one representative of each class so far, by math-verify alone.
IN_PAIRS = """
import json, sys, time
from math_verify import parse, verify
read = lambda answer: parse("\\\\boxed{" + answer + "}", parsing_timeout=None)
verify(read("y+1"), read("1+y"), timeout_seconds=None)
found = json.load(sys.stdin)
start, calls, representatives, classes = time.perf_counter(), 0, [], {}
for answer in dict.fromkeys(found):
    parsed = read(answer)
    for number, representative in enumerate(representatives):
        calls += 1
        if verify(representative, parsed, timeout_seconds=None):
            classes[answer] = number
            break
    else:
        classes[answer] = len(representatives)
        representatives.append(parsed)
print(json.dumps([time.perf_counter() - start, calls, [classes[answer] for answer in found]]))
"""


def in_pairs(found: list[str]) -> tuple[float, int, list[int]]:
    command = [sys.executable, "-c", IN_PAIRS]
    done = subprocess.run(command, input=json.dumps(found), capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout))


async def timed(grader: MathGrader, found: list[str]) -> tuple[float, list[int | None], int]:
    """Seconds, classes, and questions to the worker, which is running but, like this process, knows no answer yet."""
    asked = 0

    class Counting(Pool):
        def _ask(self, questions: Any) -> Any:
            nonlocal asked
            asked += sum(question[0] == "equal" for question in questions)
            return super()._ask(questions)

    cache = None if grader.cache is None else Cache(grader.cache, grader.version)
    pool = Counting(workers=grader.workers, memory_mb=grader.memory_mb, timeout=grader.timeout, cache=cache)
    object.__setattr__(grader, "_pool", pool)
    await grader.start()
    await pool.ask([("fingerprint", "y+1")])
    numeric.evaluate("y+1")
    for remembering in (numeric._evaluate, exact._read_short):
        remembering.cache_clear()
    asked = 0
    start = time.perf_counter()
    classes = await grader.classes(found)
    taken = time.perf_counter() - start
    await grader.close()
    return taken, classes, asked


def test_clustering_512_answers(benchmark: Any, tmp_path: Path) -> None:
    found = answers()
    ours, cached, asked = [], [], 0
    for turn in range(5):
        taken, classes, asked = asyncio.run(timed(MathGrader(timeout=60), found))
        ours.append(taken)
        on_disk = MathGrader(timeout=60, cache=str(tmp_path / f"{turn}.sqlite"))
        asyncio.run(timed(on_disk, found))
        taken, again, none = asyncio.run(timed(on_disk, found))
        cached.append(taken)
        assert (again, none) == (classes, 0)
    theirs, calls, expected = benchmark.pedantic(lambda: in_pairs(found), rounds=1)
    ratio = theirs / statistics.median(ours)
    print(
        f"\n{ANSWERS} answers, {len(set(found))} strings, {len(set(classes))} classes."
        f"\nours {1e3 * statistics.median(ours):.0f} ms ({1e3 * min(ours):.0f} to {1e3 * max(ours):.0f}, 5 turns), "
        f"{asked} comparisons by math-verify; from the disk cache {1e3 * statistics.median(cached):.0f} ms"
        f"\nin pairs {theirs:.1f} s, {calls} comparisons: {ratio:.0f} times as long"
    )
    benchmark.extra_info["ratio"] = round(ratio)
    assert classes == expected, "not the same classes"
    assert ratio >= 100
