"""The command as users type it rightly: every option of every group, schedules in short, sweeps, a question."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from pacore_lab.config.build import build
from tests.outside import HERE, ROOT, invoke

CONF = ROOT / "conf"
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
        "good.jsonl": '{"question": "1 + 1?", "answer": "2"}\n',
        **{f"{name}.jsonl": json.dumps(row) + "\n" for name, row in PUBLISHED.items()},
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path / "work")


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
