"""What reaches a terminal: every count, and nothing a model could use to control it."""

from __future__ import annotations

import io
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pacore_lab.analysis import Difference, Group, Row, Tally
from pacore_lab.showing.terminal import Progress, duration, in_words, kilo, print_answer, print_table
from pacore_lab.showing.text import safe

ROW = Row(
    method="pacore_low",
    problems=30,
    episodes=120,
    graded=110,
    ungraded=6,
    failed=4,
    accuracy=0.531,
    low=0.412,
    high=0.649,
    ttc=123_456.0,
    critical_path=45_678.0,
    seconds=92.0,
    versus=(
        Difference(
            method="pacore_low",
            baseline="majority vote @4",
            problems=30,
            mean=0.031,
            low=-0.012,
            high=0.074,
            ttc_ratio=1.25,
        ),
    ),
)


def console(*, terminal: bool = False, width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)


def written(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


def test_groups_judges_and_warnings_are_said() -> None:
    """Per-axis means, calibration and doubtful grades must not be in a file only."""
    axes = tuple(
        Group(name=name, problems=5, graded=5, accuracy=share, low=0.1, high=0.9)
        for name, share in (("a", 0.2), ("b", 0.6))
    )
    row = replace(ROW, groups=axes, group_mean=0.4, group_low=0.3, group_high=0.5, judge_tokens=1234.4)
    row = replace(row, calibration_error=0.25, ungraded=0, failed=0)
    tally = Tally(warnings=Counter({("answer", "several \x1b[2Jboxes"): 3, ("sample", "truncated"): 9}))
    to = console(width=200)
    print_table([row], tally, console=to)
    said = written(to)
    assert "pacore_low by group: a 20.0 [10.0, 90.0] (5 problems), b 60.0" in said
    assert "unweighted mean of groups 40.0 [30.0, 50.0]" in said
    assert "judge: 1,234 tokens per episode, not in TTC" in said
    assert "RMS calibration error 25.0 %" in said
    assert "to check among final answers: 3 × several boxes" in said
    assert "to check among samples: 9 × truncated" in said


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;owned\x07title", "title"),
        ("\x1b]52;c;cm0gLXJm\x1b\\clipboard", "clipboard"),
        ("\x1b]8;;file:///x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jc1 \x9d0;t\x9cdone", "c1 done"),
        ("\x1b\x1b[2J[2Jnested", "[2Jnested"),
        ("\x1b]never closed", "never closed"),
        ("over\rwritten", "over\nwritten"),
        ("a\x00b\x07c\x08d\x7fe", "abcde"),
        ("\u202egnp.exe\u2066x", "gnp.exex"),
        ("half \ud800 pair", "half \ufffd pair"),
        ("kept\t\nünïcode 参考 −", "kept\t\nünïcode 参考 −"),
    ],
)
def test_safe(hostile: str, shown: str) -> None:
    assert safe(hostile) == shown


@given(st.text(st.characters(codec=None) | st.sampled_from("\x1b[]\x07\x9b\x9c\r\u202e;m"), max_size=40))
def test_safe_leaves_no_control_and_is_idempotent(text: str) -> None:
    clean = safe(text)
    assert not any((c < " " and c not in "\t\n") or "\x7f" <= c <= "\x9f" for c in clean)
    assert safe(clean) == clean
    clean.encode("utf-8")


@pytest.mark.parametrize("piece", ["\x1b]", "\x9d", "\x1bP\x90", "\x1b[", "\x9b1;", "\x1b "])
def test_safe_is_linear(piece: str) -> None:
    """A model that repeats an unterminated escape must not stall the run."""
    start = time.perf_counter()
    safe(piece * 200_000)
    assert time.perf_counter() - start < 2


def test_print_answer_prints_markup_literally() -> None:
    out = console(terminal=True)
    print_answer("[bold]x[/bold] \x1b[31m:smile: " + "long " * 40, out)
    assert written(out) == "[bold]x[/bold] :smile: " + "long " * 40 + "\n"


def test_table_fits_eighty_columns_and_hides_nothing() -> None:
    baseline = replace(ROW, method="majority vote @4", seconds=None, ungraded=0, failed=0, graded=120, k=4, versus=())
    tally = Tally(episodes=120, sampled=480, reused=96, truncated=3)
    tally.reasons.update({("episode", "[red]dead[/red] \x1b[2J"): 4, ("trajectory", "timeout"): 9})
    tally.reasons.update({("ungraded", f"reason {i}"): 1 for i in range(6)})
    out = console()
    print_table([baseline, ROW], tally, report=Path("out/report.html"), results=Path("out/results.jsonl"), console=out)
    text = written(out)
    table = text.splitlines()[:4]
    assert all(len(row) <= 80 for row in table)
    assert "53.1 [41.2, 64.9]" in table[2]
    for said in (
        "123    45.7  1m32s  110/120",
        "480 trajectories sampled, 96 reused from the store, 3 cut off at the token limit",
        "pacore_low: 6 of 120 episodes ungraded, 4 failed",
        "9 × trajectory: timeout; 4 × episode: [red]dead[/red] ; 1 × ungraded: reason 0",
        "3 more for other reasons",
        "pacore_low − majority vote @4: +3.1 points [−1.2, 7.4] over 30 problems, at 1.2 × the tokens",
        "out/report.html",
        "out/results.jsonl",
    ):
        assert said in text
    assert "\x1b" not in text


def test_long_names_fold_and_nothing_graded_is_said() -> None:
    row = replace(ROW, method="x" * 60, accuracy=None, low=None, high=None, versus=())
    out = console()
    print_table([row], Tally(), console=out)
    assert "ungraded" in written(out)
    assert all(len(line) <= 80 for line in written(out).splitlines()[:5])


def test_no_negative_zero() -> None:
    even = replace(ROW.versus[0], mean=-0.0001, low=-0.01, high=0.0)
    assert "0.0 points [−1.0, 0.0]" in in_words(even)


def test_units() -> None:
    assert [kilo(t) for t in (None, 0, 512, 12_345, 1_234_567)] == ["–", "0.00", "0.51", "12.3", "1,235"]
    assert [duration(s) for s in (0.05, 42, 61, 7300)] == ["0.1s", "42s", "1m01s", "2h02m"]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_progress_without_a_terminal_is_plain_and_rare() -> None:
    out, clock = console(), Clock()
    with Progress(total=50, console=out, clock=clock) as progress:
        for second in range(25):
            clock.now = 100.0 + second
            progress.update(done=second, trajectories=4 * second, running=8, waiting=3, tokens=1000 * second, retries=2)
        assert progress.tokens_per_second == pytest.approx(1000)
        assert progress.seconds_left == pytest.approx(26)
    lines = written(out).splitlines()
    assert len(lines) == 3  # at 10 s, at 20 s, and the last word
    assert lines[0] == (
        "10/50 episodes in 10s, 40s left | 40 trajectories, 1,000 tokens/s, 2 retried, 8 running, 3 waiting"
    )
    assert "\x1b" not in written(out)


def test_tokens_per_second_looks_at_the_last_half_minute() -> None:
    clock = Clock()
    progress = Progress(total=2, console=console(), clock=clock)
    for second in range(100):
        clock.now = 100.0 + second
        progress.update(done=0, tokens=10 * second if second < 60 else 600 + 500 * (second - 60))
    assert progress.tokens_per_second == pytest.approx(500)
    clock.now += 1000
    assert progress.tokens_per_second < 20
    assert progress.seconds_left is None


def test_live_progress_draws_and_cleans_up_after_a_crash() -> None:
    out = console(terminal=True)

    def crash() -> None:
        with Progress(total=4, console=out) as progress:
            progress.update(done=1, trajectories=5, running=2, tokens=10, failures=1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    text = written(out)
    assert "1/4 episodes" in text
    assert "1 failed" in text
    assert text.rstrip("\n").rpartition("\x1b[?25h")[1]  # the cursor is back
