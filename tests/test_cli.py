"""The command as users type it, mistyped above all: one line beginning `error:`, at once, and nothing left on disk."""

from __future__ import annotations

import inspect
import json
import os
import time
from pathlib import Path

import pytest
from aiohttp import web
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from pacore_lab.config.build import build
from tests.outside import ROOT, Outcome, below, invoke, serving, spawn

CONF = ROOT / "conf"
HERE = ["backend=mock", "out=o", "store=s.sqlite"]


TURNS = [{"role": "user", "content": "1 + 1?"}]
CONTEST = {"problem_idx": 1, "problem": "1 + 1?", "answer": 2, "problem_type": ["Algebra"], "source": "a contest"}
PUBLISHED: dict[str, dict[str, object]] = {  # a row of each set that would come from the hub
    "aime_2025": CONTEST,
    "hmmt_feb_2025": CONTEST,
    "apex_2025": CONTEST,
    "imo_answerbench": {"Problem ID": "a", "Problem": "1 + 1?", "Short Answer": "2", "Category": "Algebra"},
    "livecodebench": {
        "question_id": "a",
        "question_content": "Say ok.",
        "contest_date": "2024-08-01T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": "[]",
        "private_test_cases": "[]",
        "metadata": "{}",
    },
    "hle_text": {
        "id": "a",
        "question": "1 + 1?",
        "image": "",
        "answer": "2",
        "answer_type": "exactMatch",
        "category": "Math",
        "raw_subject": "Arithmetic",
    },
    "multichallenge": {
        "question_id": "a",
        "axis": "SELF_COHERENCE",
        "conversation": TURNS,
        "target_question": "Is it?",
        "pass_criteria": "YES",
    },
    "pacore_train_8k_stage1": {"conversation": TURNS, "ground_truth": "2"},
    "pacore_train_8k_stage2": {"conversation": TURNS, "ground_truth": "2"},
}


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
        "good.jsonl": '{"question": "1 + 1?", "answer": "2"}\n',
        **{f"{name}.jsonl": json.dumps(row) + "\n" for name, row in PUBLISHED.items()},
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


def one_line(said: Outcome, fragment: str) -> None:
    assert said.code != 0
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1, said.err
    assert fragment in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


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


# ---- what works ----


def test_help_reads_like_documentation() -> None:
    said = invoke("--help")
    assert said.code == 0
    for text in ("strategy: ", "pacore_high", "strategy/compaction", "backend: ", "problems: ", "concurrency"):
        assert text in said.out
    assert said.out.count("python run.py") >= 4


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


GROUPS = sorted({str(path.parent.relative_to(CONF)) for path in CONF.rglob("*.yaml")} - {"."})
OPTIONS = [(group, option) for group in GROUPS for option in options(group)]
NEEDED = {
    **{f"problems={name}": [f"problems.path=../{name}.jsonl"] for name in PUBLISHED},
    **{f"grader={name}": ["grader.judge.model.name=j"] for name in ("hle", "judged_answers", "multichallenge")},
    "problems=jsonl": ["problems.path=../good.jsonl"],
    "problems=ask": ["problems.question=why"],
    "model=custom": ["model.name=x"],
    "backend=replay": ["backend.run=../bank"],
    "strategy/compaction=last_tokens": ["strategy.compaction.tokenizer=null"],
    "strategy/scorer=process_reward": ["strategy.scorer.path=/nope"],
}
WHOSE = {
    "strategy/weight": ["strategy=majority_vote"],
    "strategy/scorer": ["strategy=best_of_n"],
    "strategy/rule": ["strategy=adaptive_consistency"],
}
REFUSED = {
    "strategy/compaction=last_tokens": "tokenizer is not set",
    "strategy/scorer=process_reward": "strategy.scorer.path=/nope cannot be loaded",
    "strategy/prompt=file": "strategy.prompt.path is not set",
}


def composed(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*HERE, *overrides])


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_instantiates(group: str, option: str) -> None:
    """A YAML that lost touch with its class; an argument that no YAML shows."""
    choice = f"{group}={option}"
    cfg = composed(*WHOSE.get(group, []), choice, *NEEDED.get(choice, []))
    if group != "experiment":
        node = OmegaConf.select(cfg, group.replace("/", "."))
        names = set(inspect.signature(get_object(node["_target_"])).parameters)
        assert set(node) - {"_target_"} == names
    if choice in REFUSED:
        with pytest.raises(HydraException, match=REFUSED[choice]):
            build(cfg)
        return
    run = build(cfg)
    assert run.problems.load() or option == "ask"


@pytest.mark.parametrize("strategy", options("strategy"))
def test_cfg_job_prints_every_strategy(strategy: str) -> None:
    said = invoke("--cfg", "job", f"strategy={strategy}")
    assert (said.code, said.err) == (0, "")
    assert OmegaConf.create(said.out).strategy._target_.startswith("strategies.")


@pytest.mark.parametrize("short", ["strategy/schedule=[8,2]", "strategy.schedule.widths=[8,2]"])
def test_a_schedule_in_short(short: str) -> None:
    said = invoke("--cfg", "job", short)
    assert said.code == 0, said.err
    assert OmegaConf.create(said.out).strategy.schedule.widths == [8, 2]


@pytest.mark.parametrize("words", ["backend.extra_body={top_k: 20}", "+backend.extra_body.top_k=20"])
def test_a_mapping_takes_keys_of_its_own(words: str) -> None:
    """Hydra refuses new keys in a mapping unless they come with `+`, and conf/ shows them without."""
    said = invoke("--cfg", "job", "backend=openai", words)
    assert said.code == 0, said.err
    assert OmegaConf.create(said.out).backend.extra_body == {"top_k": 20}


def test_pacore_8b_is_published() -> None:
    model = build(composed("model=pacore_8b")).model
    assert (model.context_length, model.yarn_factor, model.yarn_original) == (131072, 2.0, 65536)
    assert (model.temperature, model.top_p, model.max_tokens) == (1.0, 1.0, None)


def test_a_sweep_of_six_jobs(tmp_path: Path) -> None:
    """Jobs of a sweep wrote into one folder, or one strategy's results under another's name."""
    said = invoke("-m", "backend=mock", "problems.n=2", "strategy=single,majority_vote,pacore_low", "seed=0,1")
    assert said.code == 0, said.err
    folders = [path.parent for path in (tmp_path / "work" / "outputs").rglob("results.jsonl")]
    assert len(folders) == 6
    runs = [json.loads((folder / "settings.json").read_text()) for folder in folders]
    assert {run["seed"] for run in runs} == {0, 1}
    assert len({run["strategy"]["_target_"] for run in runs}) == 3
    names = [json.loads((folder / "summary.json").read_text())["strategy"] for folder in folders]
    assert sorted(names) == sorted(["single", "majority_vote", "pacore_low"] * 2)
    assert os.listdir(tmp_path / "work") == ["outputs"]


def test_a_question_from_the_command_line() -> None:
    """`problems=ask` prints the answer itself."""
    said = invoke(*HERE, "problems=ask", 'problems.question="What is (1, 2) {a}, $5?"')
    assert said.code == 0, said.err
    assert "\\boxed{" in said.out
