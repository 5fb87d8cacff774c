"""Fields of a wrong type are refused when a part is built, under their config keys, not once tokens are spent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from pacore_lab.grading import NoGrader
from strategies.best_of_n import BestOfN
from strategies.compaction import Conclusion, Dedupe, DisagreementDigest, GlobalSummary, LLMSummary, RandomK, TopK
from strategies.deepconf import DeepConfOffline, DeepConfOnline
from strategies.genselect import GenSelect
from strategies.orders import ByClassSize, ByWeight, Majority, Published
from strategies.pacore import PaCoRe
from strategies.prompts import Template
from strategies.schedules import Fixed
from strategies.scorers import Judge
from strategies.scorers import Likelihood as Scored
from strategies.scorers.process_reward import ProcessReward
from strategies.stopping import Beta, Dirichlet, Share
from strategies.universal_self_consistency import UniversalSelfConsistency
from strategies.weights import Confidence, Length, Likelihood
from tests.outside import HERE, below, invoke, one_line

SHARES = (None, "abc", "1", True, [], 0, 1.5, float("nan"))
NUMBERS = (None, "abc", "1", True, [], float("nan"), float("inf"))
FLAGS = ("abc", "true", None, 1, [])
ROLES = (None, [], {}, 5, True, "")
LISTS = (None, 5, True, 1.5, "abc", ["a", 5], [""], {"a": 1})
PARTS = ("abc", None, 5, LLMSummary(of=Conclusion(), max_tokens=8))

BARE = partial(PaCoRe, prompt=Template(), order=Published(), compaction=Conclusion())
FIELDS: list[tuple[Callable[..., Any], str, tuple[object, ...]]] = [
    (partial(DeepConfOffline, n=4, grader=NoGrader()), "strategy.keep", SHARES),
    (partial(DeepConfOnline, grader=NoGrader()), "strategy.keep", SHARES),
    (partial(DeepConfOnline, grader=NoGrader()), "strategy.consensus", SHARES),
    (Beta, "strategy.rule.threshold", SHARES),
    (Dirichlet, "strategy.rule.threshold", SHARES),
    (partial(Share, least=2), "strategy.rule.share", SHARES),
    (Likelihood, "strategy.weight.temperature", (*NUMBERS, 0)),
    (Confidence, "strategy.weight.temperature", (*NUMBERS, 0)),
    (Length, "strategy.weight.power", NUMBERS),
    (partial(BestOfN, n=2, scorer=Scored(), grader=NoGrader()), "strategy.vote", FLAGS),
    (partial(Dedupe, of=Conclusion()), "strategy.compaction.keep_invalid", FLAGS),
    (Majority, "strategy.order.first", FLAGS),
    (ByClassSize, "strategy.order.largest_first", FLAGS),
    (partial(ByWeight, by=Length()), "strategy.order.largest_first", FLAGS),
    (BARE, "strategy.schedule", PARTS),
    (partial(BARE, schedule=Fixed(widths=[2])), "strategy.accumulate", FLAGS),
    (partial(BARE, schedule=Fixed(widths=[2])), "strategy.roles", LISTS),
    (GenSelect, "strategy.role", ROLES),
    (UniversalSelfConsistency, "strategy.role", ROLES),
    (Judge, "strategy.scorer.role", ROLES),
    (partial(LLMSummary, of=Conclusion(), max_tokens=8), "strategy.compaction.role", ROLES),
    (partial(GlobalSummary, of=Conclusion(), max_tokens=8), "strategy.compaction.role", ROLES),
    (partial(Dedupe, keep_invalid=True), "strategy.compaction.of", PARTS),
    (partial(DisagreementDigest, shown=1), "strategy.compaction.of", PARTS),
    (partial(LLMSummary, max_tokens=8), "strategy.compaction.of", PARTS),
    (partial(RandomK, k=1), "strategy.compaction.of", PARTS),
    (partial(TopK, k=1, by=Length()), "strategy.compaction.of", PARTS),
    (partial(TopK, k=1, of=Conclusion()), "strategy.compaction.by", PARTS),
    (partial(ByWeight, largest_first=True), "strategy.order.by", PARTS),
    (partial(ProcessReward, path="/nope"), "strategy.scorer.aggregate", (None, [], {})),
    (partial(ProcessReward, path="/nope"), "strategy.scorer.separator", (None, "", 5)),
    (ProcessReward, "strategy.scorer.path", (None, 5)),
]


@pytest.mark.parametrize(("build", "key", "wrong"), FIELDS)
def test_a_field_of_a_wrong_type_is_refused_by_its_key(
    build: Callable[..., Any], key: str, wrong: tuple[object, ...]
) -> None:
    """`'<' not supported` without a key; texts that counted as true; what was no name or part failed every episode."""
    for value in wrong:
        with pytest.raises(ValueError, match=r"^\S+ is .+; (give|name) ") as said:
            build(**{key.rpartition(".")[2]: value})
        assert str(said.value).startswith(f"{key} is "), value


def test_what_is_right_is_taken() -> None:
    """Whole numbers are numbers: keep=1."""
    assert DeepConfOffline(n=4, grader=NoGrader(), keep=1).keep == 1
    assert Likelihood(temperature=2).temperature == 2
    assert Length(power=-2).power == -2


ROLE = "strategy=genselect"
TYPED = [
    (f"{ROLE} strategy.role=null model@roles.judge=rlvr_tiny", "strategy.role is None; give a name"),
    (f"{ROLE} +roles.judge=null", "roles.judge is None; give it a model: model@roles.judge=OPTION"),
    (f"{ROLE} +roles.judge=abc", "roles.judge is 'abc'; give it a model"),
    (
        f"{ROLE} +roles.judge.model=rlvr_tiny",
        "roles.judge.model is not a model yet; name one first: model@roles.judge=",
    ),
    (f"{ROLE} +roles.judge.model.temperature=0.5", "roles.judge.model is not a model yet"),
    (
        f"{ROLE} +roles.judge.backend=null",
        "roles.judge.backend is not a backend yet; name one first: backend@roles.judge=",
    ),
    (f"{ROLE} roles.judge.model.temperature=0.3", "a role has the keys of its options: model@roles.judge=OPTION"),
    (f"{ROLE} model@roles.judge=rlvr_tiny roles.judge.model.temperature=-1", "roles.judge: model.temperature is -1"),
    (
        f"{ROLE} backend@roles.judge=openai roles.judge.backend.base_url=nonsense",
        "roles.judge: backend.base_url is 'nonsense'",
    ),
    (
        "strategy=early_stopping_sc strategy/rule=beta",
        "strategy.batch takes its value from strategy.rule.window, which the options chosen do not have; "
        "set strategy.batch=VALUE",
    ),
]


@pytest.mark.parametrize(("words", "fragment"), TYPED)
def test_a_wrong_role_is_one_line(words: str, fragment: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracebacks, and advice that led to the next one."""
    monkeypatch.chdir(tmp_path)
    one_line(invoke(*HERE, *words.split()), fragment)
    assert below(tmp_path) == []
