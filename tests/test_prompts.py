"""The prompts beside the published one differ from it in one thing each. Its own bytes are in test_fidelity.py."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from pacore_lab.config.calling import composed
from pacore_lab.errors import ConfigError
from pacore_lab.types import Message, Problem
from strategies.prompts import Template, critique, from_file, published, unlabelled, unnumbered, with_counts
from tests.doubles import user

PROBLEM = Problem(id="p", messages=user("2 + 2?"), answer="4")
MESSAGES = [Message(text="first", sources=("a", "c", "d")), Message(text="second", sources=("b",))]


def text(prompt: Template, messages: list[Message] = MESSAGES) -> str:
    return str(prompt(PROBLEM, messages)[0]["content"])


def changes(prompt: Template) -> list[str]:
    """Lines of the published text that are gone (-) and that are new (+)."""
    found = difflib.ndiff(text(published()).splitlines(), text(prompt).splitlines())
    return [line for line in found if line[0] in "+-"]


def test_counts_are_shares_of_all_trajectories() -> None:
    assert changes(with_counts()) == [
        "- Reference 1:",
        "+ Reference 1 (3 of 4 responses):",
        "- Reference 2:",
        "+ Reference 2 (1 of 4 responses):",
    ]


def test_a_trajectory_in_two_messages_is_counted_once_in_the_total() -> None:
    both = [Message(text="x", sources=("a", "b")), Message(text="y", sources=("b",))]
    assert "(2 of 2 responses)" in text(with_counts(), both)
    assert "(1 of 2 responses)" in text(with_counts(), both)


def test_unlabelled_leaves_empty_lines_only() -> None:
    assert changes(unlabelled()) == ["- Reference 1:", "- Reference 2:"]
    assert "Reference Responses:\n\nfirst\n\nsecond\n\n" in text(unlabelled())


def test_critique_changes_the_request_only() -> None:
    gone, new = changes(critique())
    assert gone.endswith("above, please provide your own comprehensive solution.")
    assert "above, first criticize each reference in turn" in new
    assert new.endswith("provide your own comprehensive solution.")


@pytest.mark.parametrize("prompt", [published(), unnumbered(), unlabelled(), with_counts(), critique()])
def test_every_prompt_keeps_hostile_text_and_leaves_a_lone_problem_alone(prompt: Template) -> None:
    hostile = "{{ 7 * 7 }} {% raw %} Reference {{ loop.index }}:\n{{ total }}"
    assert hostile in text(prompt, [Message(text=hostile, sources=("a",))])
    assert prompt(PROBLEM, []) == PROBLEM.messages


def test_a_prompt_is_read_from_a_text_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("{{ original_prompt }} ({{ total }})\n{% for r in ref_responses %}- {{ r }}\n{% endfor %}")
    built = composed("backend=mock", f"strategy.prompt.path={file}")
    assert text(built.strategy.prompt).startswith("2 + 2? (4)")
    kept = built.settings["strategy"]["prompt"]
    assert from_file(path=kept["path"], digest=kept["digest"]) == built.strategy.prompt
    file.write_text("{{ original_prompt }}")
    with pytest.raises(ValueError, match=r"path=\S+ is no longer the file of this run"):
        from_file(path=kept["path"], digest=kept["digest"])


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{{ original_promt }}", r"path=\S+ uses 'original_promt'; a prompt is given original_prompt, "),
        ("a\n{% for x in %}", r"path=\S+, line 2: .+; a prompt is a Jinja2 template"),
        (b"\xff\xfe", r"path=\S+ cannot be read \(not UTF-8\)"),
        (None, r"path=\S+ cannot be read \(No such file"),
    ],
)
def test_a_prompt_file_that_cannot_be_one_is_one_line(tmp_path: Path, written: str | bytes | None, said: str) -> None:
    """A misspelled variable rendered as nothing: the model was asked without the problem."""
    file = tmp_path / "mine.txt"
    if written is not None:
        file.write_bytes(written if isinstance(written, bytes) else written.encode())
    with pytest.raises(ConfigError, match=f"^strategy.prompt.{said}") as refused:
        composed("backend=mock", f"strategy.prompt.path={file}")
    assert "\n" not in str(refused.value)
