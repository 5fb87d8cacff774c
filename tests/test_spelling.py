"""What is said of the words of a command line."""

from __future__ import annotations

import pytest

from pacore_lab.config.spelling import changes, spelt, words_of
from pacore_lab.errors import ConfigError


def test_a_table_names_a_method_by_what_was_typed() -> None:
    """`model@roles.judge=rlvr_tiny` became "les.judge.model=rlvr_tiny": another prefix was cut off."""
    typed = [
        "strategy=genselect",
        "strategy.n=4",
        "strategy/compaction=full",
        "model@roles.judge=rlvr_tiny",
        "backend@roles.judge=mock",
        "roles.judge.model.temperature=0.3",
        "+roles.judge.backend.extra_body.top_k=20",
        "strategy.schedule.of={a: 1}",
        "seed=3",
    ]
    assert changes(spelt(typed)) == [
        "n=4",
        "compaction=full",
        "model@roles.judge=rlvr_tiny",
        "backend@roles.judge=mock",
        "roles.judge.model.temperature=0.3",
        "roles.judge.backend.extra_body.top_k=20",
        "schedule.of={a: 1}",
    ]


def test_a_policy_is_told_apart_as_by_a_shell() -> None:
    assert words_of("strategy=single 'strategy.probe=a b'") == ["strategy=single", "strategy.probe=a b"]
    with pytest.raises(ConfigError, match="strategy=single 'foo: no closing quotation"):
        words_of("strategy=single 'foo")
    for empty in ("", "  "):
        with pytest.raises(ConfigError, match="a policy is empty"):
            words_of(empty)
