"""The page a researcher opens: complete, honest, and deaf to what a model wrote into it."""

from __future__ import annotations

import html.parser
import os
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pacore_lab.analysis import summarise
from pacore_lab.showing import report
from pacore_lab.showing.report import clip, finding, write_report
from tests.lines import line

META = {"strategy": "pacore_low", "model": "a/model", "problems": "sums", "config": "seed: 0", "versions": {"torch": 3}}
HOSTILE = (
    "<script>alert(1)</script></pre><img src=x onerror=alert(1)> {{7*7}} {% raw %} {# gone? #} &lt;b&gt; "
    "\"'` <!-- --> ]]> \x1b[31mred\x1b[0m \x00 \ud800 \u202e end"
)
VOID = {"meta", "br", "img", "hr", "link", "input"}


class Page(html.parser.HTMLParser):
    """Checks that tags nest, and collects tags, attributes and text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def write(out: Path, lines: list[dict[str, Any]], meta: dict[str, Any] = META) -> tuple[str, Page]:
    path = write_report(out, summarise(lines, meta["strategy"]), meta, iter(lines))
    source = path.read_text("utf-8")
    return source, Page(source)


def hostile_line() -> dict[str, Any]:
    evil = line("p<b>", score=0.5, final_response="<think>" + HOSTILE, final_answer=HOSTILE)
    evil["grade"] = {"score": None, "reason": HOSTILE}
    evil["problem"] = [{"role": HOSTILE, "content": [{"type": "text", "text": HOSTILE}]}]
    evil["ground_truth"] = {"answer": HOSTILE}
    evil["messages"] = [[{"text": HOSTILE, "sources": [HOSTILE]}]]
    evil["trajectories"][0][0]["error"] = HOSTILE
    return evil


def test_hostile_text_arrives_escaped_everywhere(tmp_path: Path) -> None:
    meta = {"strategy": HOSTILE, "model": HOSTILE, "problems": HOSTILE, "config": HOSTILE, HOSTILE: {HOSTILE: HOSTILE}}
    source, page = write(tmp_path, [line("a"), hostile_line()], meta)
    assert not page.tags & {"script", "img", "iframe", "link", "object", "b"}
    assert not any(key.startswith("on") for key, _ in page.attributes)
    assert page.text.count("<script>alert(1)</script></pre>") > 10
    assert "{{7*7}} {% raw %} {# gone? #} &lt;b&gt;" in page.text  # literal: neither run nor unescaped
    assert "49" not in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", source)
    assert "\ufffd" in source
    ET.parse(tmp_path / "accuracy_vs_ttc.svg")  # a hostile name of a method does not break the picture


def test_the_page_is_alone(tmp_path: Path) -> None:
    source, page = write(tmp_path, [line("a"), line("b", score=0.0)])
    policy = next(value for key, value in page.attributes if value.startswith("default-src"))
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "://" not in source
    assert "url(http" not in source
    assert all(value.startswith("#") for key, value in page.attributes if key in ("href", "src", "xlink:href"))


def test_it_says_what_the_run_found(tmp_path: Path) -> None:
    lines = [line("a"), line("b", 0, 0.0), line("c", score=None), line("d", error="RequestError: prompt too long")]
    _, page = write(tmp_path, lines)
    for said in (
        "This run does not tell pacore_low and majority vote @4 apart",
        "a/model",
        "seed: 0",
        "torch 3",
        "1 × episode: RequestError: prompt too long",
        "1 × ungraded: no ground truth",
        "pacore_low: 1 of 4 episodes ungraded, 1 failed; not in its accuracy",
        "What is 3 + 4?",
        "It is 7.",
        "The answer is \\boxed{7}.",
        "extracted answer: 7",
        "16 trajectories sampled, 4 reused from the store",
    ):
        assert said in page.text


def test_the_plot_names_every_method_and_follows_the_theme(tmp_path: Path) -> None:
    source, page = write(tmp_path, [line("a"), line("b", score=0.0)])
    inlined = source[source.index("<svg") : source.index("</svg>")]
    assert all(name in inlined for name in ("single sample", "majority vote @4", "pacore_low"))
    assert "currentColor" in inlined
    assert report.INK not in inlined
    assert "#ffffff" not in inlined
    assert (tmp_path / "accuracy_vs_ttc.png").read_bytes().startswith(b"\x89PNG")
    assert "svg" in page.tags


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    lines = [line(f"p{i}") for i in range(3)]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, lines)
    for name in ("report.html", "accuracy_vs_ttc.svg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("lines", [[], [line(score=None, single=None, vote=None)], [line(error="dead", baselines={})]])
def test_nothing_graded_gives_a_page_without_a_plot(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    _, page = write(tmp_path, lines)
    assert "it says nothing about accuracy" in page.text
    assert "svg" not in page.tags
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_unanimous_scores_and_free_tokens_can_be_drawn(tmp_path: Path, score: float) -> None:
    """Intervals that end at 0 or 1 within rounding, and a log axis at zero, both stop matplotlib."""
    lines = [line(f"p{i}", r, score, score, score) for i in range(7) for r in range(3)]
    for entry in lines:
        entry["tokens"]["ttc"] = 0
    write(tmp_path, lines)


def test_the_sample_is_bounded_even_and_cut(tmp_path: Path) -> None:
    lines = [line(f"p{i:04d}", final_response="a" * 100_000 + "THE END") for i in range(400)]
    lines[0]["messages"] = [[{"text": "m" * 5000, "sources": []}] * 600]
    source, page = write(tmp_path, lines)
    shown = [int(number) for number in re.findall(r"p(\d{4}), repeat", page.text)]
    assert len(shown) == report.EPISODES
    assert shown == sorted(shown)
    assert 100 < sum(shown) / len(shown) < 300  # not just those that finished first
    assert page.text.count("THE END") == report.EPISODES
    assert len(source) < 1_500_000


def test_clip_keeps_both_ends() -> None:
    assert clip("short", 10) == "short"
    assert clip("ab" * 50, 10) == "ababa\n… 90 characters left out …\nbabab"


def test_the_finding_claims_no_more_than_the_interval() -> None:
    ours = summarise([line(f"p{i}") for i in range(30)], "s")[-1]
    assert finding([ours]).startswith("s scored 50.0 points higher than majority vote @4 (95\u00a0% interval")
    worse = replace(ours.versus[1], mean=-0.2, low=-0.3, high=-0.1)
    assert finding([replace(ours, versus=(worse,))]).startswith("s scored 20.0 points lower than")
    even = replace(worse, low=-0.4, high=0.0)
    assert finding([replace(ours, versus=(even,))]).startswith("This run does not tell s and majority vote @4 apart")
    assert "nothing to compare it with" in finding([replace(ours, versus=())])


def test_a_crash_while_writing_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, _ = write(tmp_path, [line("a")])

    def full_disk(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write(tmp_path, [line("b")])
    assert (tmp_path / "report.html").read_text("utf-8") == before
