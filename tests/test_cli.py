"""The command as users mistype it: one line beginning `error:`, at once, and nothing left on disk."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from aiohttp import web

from tests.outside import HERE, Outcome, below, invoke, one_line, serving, spawn


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory beside the files that some commands name."""
    (tmp_path / "work").mkdir()
    files = {
        "empty.jsonl": "\n \n",
        "cut.jsonl": '{"question": "1 + 1?", "answer": "2"}\n\n{"question": "2 + 2?", "ans',
        "list.jsonl": "[1, 2]\n",
        "neither.jsonl": '{"question": "1?"}\n{"prompt": "2?"}\n',
        "no_user.jsonl": '{"messages": [{"role": "system", "content": "x"}]}\n',
        "latin.jsonl": "",
        "text": "not a database, but long enough to be taken for one " * 40,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "\xe9?"}\n')
    monkeypatch.chdir(tmp_path / "work")


MISTAKES = [
    # typos
    ("sed=1", "there is no key sed; did you mean seed?"),
    ("seed.x=1", "seed"),
    ("strategy.shedule=1", "strategy.shedule"),
    ("strategy.schedule.width=[4]", "strategy.schedule.width"),
    ("strategy=pacore_hihg", "pacore_high"),
    ("strategy/compaction=ful", "conclusion"),
    ("backend=vlm", "openai"),
    ("stratgy=single", "did you mean strategy?"),
    # bad override syntax
    ("seed", "seed"),
    ("seed=[1", "[1"),
    ("seed=0,1", "multirun"),
    ("+seed=1", "seed"),
    ("strategy=null", "Config group override must be a string"),
    # values
    ("seed=abc", "seed"),
    ("concurrency=0", "concurrency is 0"),
    ("concurrency=null", "concurrency"),
    ("repeats=0", "repeats is 0"),
    ("limit=0", "limit is 0"),
    ("pool=0", "pool is 0"),
    ("budget=0", "budget is 0"),
    ("model@roles.judge=rlvr_tiny", "its roles are explore, synthesize"),
    ("strategy=single model@roles.judge=rlvr_tiny", "it asks none"),
    ("model@roles.explore=nope", "nope"),
    ("+roles.explore.modle=1", "roles.explore.modle"),
    ("strategy=allocated strategy.mean=4", "strategy.mean is 4"),
    ("strategy/schedule=quorum strategy.schedule.share=0", "strategy.schedule.share is 0"),
    ("strategy/schedule=agreement_stop strategy.schedule.batch=0", "strategy.schedule.batch is 0"),
    ("strategy/schedule=agreement_stop strategy.schedule.then=x", "strategy.schedule.then is 'x'"),
    ("strategy/schedule=skip_agreed grader=multichallenge grader.judge.model.name=x", "compared"),
    ("backend=replay", "backend.run is not set"),
    ("backend=replay backend.run=../bank", "holds no run"),
    ("strategy.schedule.widths=[0]", "strategy.schedule.widths is [0]"),
    ("strategy.schedule.widths=[4,-1]", "strategy.schedule.widths is [4, -1]"),
    ("strategy.schedule.widths=abc", "strategy.schedule.widths is 'abc'"),
    ("strategy.schedule.widths=4", "strategy.schedule"),
    ("strategy=sequential strategy.n=0", "strategy.n is 0"),
    ("strategy=majority_vote strategy.k=0", "strategy.k is 0"),
    ("strategy/compaction=random_k strategy.compaction.k=0", "strategy.compaction.k is 0"),
    ("strategy/compaction=last_tokens model.path=null", "strategy.compaction.tokenizer"),
    ("strategy=best_of_n strategy/scorer=process_reward", "strategy.scorer.path is not set"),
    ("strategy=best_of_n strategy/scorer=process_reward strategy.scorer.path=/x", "strategy.scorer.path=/x cannot"),
    ("strategy=best_of_n", "set model.logprobs=true"),
    ("model.temperature=-1", "model.temperature is -1"),
    ("model.top_logprobs=5", "needs model.logprobs=true"),
    ("grader.timeout=0", "grader.timeout is 0"),
    ("problems=arithmetic problems.operations=[div]", "div"),
    ("~seed", "seed"),
    ("pool=2", "pool=2 is smaller"),
    ("seed=99999999999999999999", "seed"),
    ("strategy=majority_vote strategy.k=2.5", "strategy.k"),
    ("+sed=1", "sed"),
    # files
    ("problems=jsonl problems.path=nope.jsonl", "nope.jsonl: No such file"),
    ("problems=jsonl problems.path=../empty.jsonl", "no problems"),
    ("problems=jsonl problems.path=../cut.jsonl", "cut.jsonl:3: not JSON"),
    ("problems=jsonl problems.path=../list.jsonl", "list.jsonl:1: "),
    ("problems=jsonl problems.path=../neither.jsonl", "neither.jsonl:2: "),
    ("problems=jsonl problems.path=../no_user.jsonl", "no_user.jsonl:1: "),
    ("problems=jsonl problems.path=../latin.jsonl", "latin.jsonl:1: not UTF-8"),
    ("problems=ask problems.question=", "problems.question is empty"),
    ("out=../text", "is a file"),
    ("out=/dev/null/x", "cannot be written"),
    ("problems=jsonl", "problems.path"),
    ("problems=ask", "problems.question"),
    ("model=custom", "model.name"),
    ("problems=jsonl problems.path=5", "5"),
    ("store=..", "is a folder"),
    ("store=../text", "not an SQLite file"),
    # engines
    ("backend=openai backend.base_url=http://127.0.0.1:9/v1", "no server answers at http://127.0.0.1:9/v1"),
    ("backend=openai backend.base_url=nonsense", "backend.base_url"),
    ("backend=openai backend.api_key_env=PACORE_NO_SUCH_KEY", "PACORE_NO_SUCH_KEY"),
    ("backend=hf model=custom model.name=x model.path=/nope", "/nope"),
    ("backend=hf model=custom model.name=x", "model.path"),
]


@pytest.mark.parametrize(("arguments", "fragment"), MISTAKES)
def test_a_mistake_is_one_line(arguments: str, fragment: str, tmp_path: Path) -> None:
    """Hydra's pages of chained exceptions; a folder or database left behind by a run that never was."""
    began = time.process_time()
    said = invoke(*HERE, *arguments.split(" "))
    one_line(said, fragment)
    assert below(tmp_path / "work") == []
    assert time.process_time() - began < 10


@pytest.mark.parametrize("arguments", ["strategy.schedule.widths=[0]", "sed=1"])
def test_a_mistake_is_one_line_in_a_true_process(arguments: str, tmp_path: Path) -> None:
    """What only a whole process shows: exit codes, warnings at exit, Hydra's own excepthook."""
    process = spawn(*HERE, arguments, cwd=tmp_path / "work")
    out, err = process.communicate(timeout=30)
    one_line(Outcome(process.returncode, out, err), "error: ")
    assert below(tmp_path / "work") == []


@pytest.mark.parametrize("status", [404, 401])
def test_a_server_that_refuses_every_request(status: int, tmp_path: Path) -> None:
    """A wrong path in the URL or a wrong key shows with the first request: one error, no traceback behind it."""
    refusal = lambda payload, n: web.json_response({"error": {"message": "nobody here"}}, status=status)  # noqa: E731
    with serving(refusal) as server:
        url = f"backend.base_url={server.base_url}"
        process = spawn(*HERE, "backend=openai", url, "problems.n=2", cwd=tmp_path / "work")
        _, err = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "Traceback" not in err
    assert [line for line in err.splitlines() if line.startswith("error: ")] == err.splitlines()[-1:]
    assert "nobody here" in err
