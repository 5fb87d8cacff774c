"""OUT/report.html, a self-contained page: no scripts, no external addresses, all model text escaped.

Beside it, the plot of accuracy against test-time compute, as SVG and as PNG for a paper.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pacore_lab.analysis import Compacted, Compactions, Difference, Line, Row, Tally
from pacore_lab.results.disk import write
from pacore_lab.showing.plots import INK, Point, draw
from pacore_lab.showing.terminal import (
    count_of,
    drawn,
    duration,
    grouped,
    in_words,
    judged,
    kilo,
    missing,
    percent,
    points,
    share,
    warned,
)
from pacore_lab.showing.text import safe
from pacore_lab.types import text_of

EPISODES = 50
"""How many episodes are shown, drawn evenly from all of them."""
CHARACTERS = 2_000
"""How many characters are shown of a problem, of a message, and of either end of a response."""
MESSAGES = 32
"""How many messages are shown per round."""


def write_report(out: Path, rows: Sequence[Row], meta: Mapping[str, Any], lines: Iterable[Line]) -> Path:
    """Write report.html and return its path; if anything was graded, also write accuracy_vs_ttc.svg and .png.

    rows: from `analysis.summarise`. meta: "strategy", "model", "problems" (names), "config" (the resolved config as
    text); other entries, such as versions and seeds, are listed with the settings. lines: of results.jsonl, in any
    order, read once.
    """
    tally, compacted, episodes = _read(lines)
    plot = None
    if shown := [point for row in rows if (point := point_of(row)) is not None]:
        pictures = draw(shown)
        for name in ("svg", "png"):
            write(out / f"accuracy_vs_ttc.{name}", pictures[name])
        plot = _inlined(pictures["svg"].decode())
    # finalize sees every value the template prints, so no model text can slip through unescaped
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else safe(str(value)),
    )
    environment.filters.update(percent=percent, kilo=kilo, duration=duration, in_words=in_words, clip=clip, share=share)
    template = environment.from_string(resources.files(__package__).joinpath("report.html.j2").read_text("utf-8"))
    named = {key: meta[key] for key in ("strategy", "model", "problems", "config")}
    html = template.render(
        **named,
        settings={key: value for key, value in meta.items() if key not in named},
        finding=finding(rows),
        rows=rows,
        plot=plot,
        drawn=drawn(tally),
        remarks=[*missing(rows), *warned(tally), *grouped(rows), *judged(rows)],
        compacted=compacted,
        reasons=tally.reasons.most_common(30),
        episodes=episodes,
        total=tally.episodes,
        messages_shown=MESSAGES,
    )
    write(out / "report.html", html.encode())
    return out / "report.html"


def point_of(row: Row) -> Point | None:
    """A method's point in the plot, None if nothing was graded."""
    if row.ttc is None or row.accuracy is None or row.low is None or row.high is None:
        return None
    return Point(name=row.method, cost=max(row.ttc, 1), accuracy=row.accuracy, low=row.low, high=row.high)


def finding(rows: Sequence[Row]) -> str:
    """The outcome in one honest sentence: against the vote if there is one, else against the single sample."""
    ours = rows[-1]
    if ours.accuracy is None:
        return "No episode of this run was graded, so it says nothing about accuracy."
    if not ours.versus:
        on = count_of(ours.problems, "problem")
        return f"{ours.method} scored {percent(ours)} % on {on}; there is nothing to compare it with."
    return _verdict(ours.versus[-1])


def _verdict(d: Difference) -> str:
    interval = f"95\u00a0% interval {points(d.low, '')} to {points(d.high, '')}"
    on = f"on {count_of(d.problems, 'problem')}"
    cost = "" if d.ttc_ratio is None else f" It spent {d.ttc_ratio:.1f} times the tokens."
    if d.low <= 0 <= d.high:
        return (
            f"This run does not tell {d.method} and {d.baseline} apart: the difference is {points(d.mean)} points "
            f"({interval}) {on}.{cost}"
        )
    better = "higher" if d.mean > 0 else "lower"
    size = points(abs(d.mean), "")
    return f"{d.method} scored {size} points {better} than {d.baseline} ({interval}) {on}.{cost}"


def clip(text: str, limit: int = CHARACTERS) -> str:
    """At most `limit` characters from both ends, since conclusions come last, and a note of how many are missing."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"


def _read(lines: Iterable[Line]) -> tuple[Tally, list[Compacted], list[dict[str, Any]]]:
    """All counts, how much messages kept, and the episodes to show: those whose names hash lowest, by problem."""
    tally, compactions = Tally(), Compactions()
    kept: list[tuple[int, int, dict[str, Any]]] = []
    for line in lines:
        tally.add(line)
        compactions.add(line)
        name = repr((line["request_id"], line["repeat"]))
        rank = -int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
        if len(kept) < EPISODES:
            heapq.heappush(kept, (rank, tally.episodes, _episode(line)))
        elif rank > kept[0][0]:
            heapq.heapreplace(kept, (rank, tally.episodes, _episode(line)))
    shown = sorted((entry[-1] for entry in kept), key=lambda episode: (episode["id"], episode["repeat"]))
    return tally, compactions.rounds, shown


def _episode(line: Line) -> dict[str, Any]:
    """The part of an episode that the page shows, clipped at once because a line may be megabytes."""
    return {
        "id": line["request_id"],
        "repeat": line["repeat"],
        "score": line["grade"]["score"],
        "reason": clip(line["error"] or line["grade"]["reason"]),
        "answer": clip(line["final_answer"] or ""),
        "truth": clip((line["ground_truth"] or {}).get("answer") or ""),
        "problem": [(turn["role"], clip(text_of(turn["content"]))) for turn in line["problem"]],
        "rounds": [
            {"messages": [clip(m["text"]) for m in messages[:MESSAGES]], "count": len(messages)}
            for messages in line["messages"]
        ],
        "response": clip(line["final_response"], 4 * CHARACTERS),
        "ttc": line["tokens"]["ttc"],
    }


def _inlined(svg: str) -> Markup:
    """The plot for the page: no prolog, no white background, text in the page's colour."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r' xmlns(:\w+)?="[^"]*"', "", body)
    body = re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", body, count=2)
    body = body.replace(INK, "currentColor").replace("fill: #ffffff", "fill: none")
    return Markup(body)  # contains names of methods, which matplotlib has escaped
