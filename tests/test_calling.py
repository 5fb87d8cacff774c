"""The arguments of run and solve: words, values and objects of one's own, and mistakes told in one line."""

from __future__ import annotations

from typing import Any

import pytest

from backends.mock import Mock
from pacore_lab import ConfigError, Model, composed, load, run, solve
from pacore_lab.problems import JSONL
from strategies import PaCoRe
from tests.doubles import Scripted

MODEL = Model(name="m")

pytestmark = pytest.mark.usefixtures("here")


# ---- arguments ----


def test_parts_may_be_objects() -> None:
    backend = Scripted(lambda request, n: "\\boxed{2}")
    backend.fingerprint = "mine"
    folder = run(strategy=PaCoRe([2]), backend=backend, problems=JSONL(path="ten.jsonl"), model=MODEL, out="o", limit=3)
    assert len(backend.requests) == 9
    assert load(folder).table()[-1]["method"] == "PaCoRe"
    assert composed(strategy=PaCoRe([2]), backend=backend).settings["strategy"]["schedule"] == [2]


def test_a_backend_brings_its_model() -> None:
    """The run was labelled, and sampled, as the configuration's default model."""
    backend = Mock(model=Model(name="mine", temperature=0.3, max_tokens=777))
    made = composed("problems=jsonl", "problems.path=ten.jsonl", backend=backend)
    assert (made.model, made.settings["model"]["name"]) == (backend.model, "mine")
    with pytest.raises(ConfigError, match="leave model out"):
        composed(backend=backend, model=MODEL)
    with pytest.raises(ConfigError, match="model is given twice"):
        composed("model=pacore_8b", backend=backend)


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["strategy=pacore", "strategy/schedule=[3]"], {"strategy": PaCoRe([2])}),
        (["strategy/schedule=[3]"], {"strategy": PaCoRe([2])}),
        (["strategy=single"], {"strategy": "pacore_low"}),
        (["repeats=2"], {"repeats": 1}),
        (["model.name=abc"], {"model": MODEL}),
    ],
)
def test_nothing_is_chosen_twice_in_silence(words: list[str], values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is given twice"):
        composed("backend=mock", *words, **values)


@pytest.mark.parametrize(
    "text",
    ["1e5", "true", "1_000", "42", "null", "a b\\\\", "tail\\", "\\frac{1}{2}", "$x$", "it's", "a, b"],
)
def test_text_arrives_as_it_is(text: str) -> None:
    """Numbers, booleans and the environment were read out of it."""
    made = composed("backend=mock", "problems=ask", **{"problems.question": text})
    assert made.problems.load()[0].messages[0]["content"] == text
    assert made.settings["problems"]["question"] == text


# ---- mistakes ----


@pytest.mark.parametrize(
    ("words", "values", "said"),
    [
        (["strateg=pacore"], {}, "did you mean strategy"),
        ([], {"repeats": {"a": 1}}, r"repeats is \{'a': 1\}; give text, a number"),
        ([], {"repeats": 0}, "repeats is 0"),
        ([], {"strategy": "nothing"}, "nothing"),
    ],
)
def test_mistakes_are_one_line(words: list[str], values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        run("backend=mock", *words, **values)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "values", "said"),
    [
        (["+repaets=4"], {}, "did you mean repeats"),
        ([], {"repaets": 4}, "repaets"),
        ([], {"strategy": PaCoRe}, r"strategy is the class PaCoRe; give an object"),
        ([], {"backend": None}, "backend is None; give a pacore_lab.Backend, which has a method complete"),
        ([], {"problems": [1]}, r"problems is \[1\]; give a pacore_lab.ProblemSet, which has a method load"),
        ([], {"model": "nothing"}, "nothing"),
        ([], {"model": 3}, "model is 3; give pacore_lab.Model"),
        ([], {"problems.path": "${oc.env:HOME}"}, r"problems.path holds '\$\{'.*give problems as an object"),
        ([["strategy=single"]], {}, "is not a word of the command line"),
        (["strategy=majority_vote", "strategy.prompt.path=x"], {}, "the strategy chosen has no prompt to choose"),
    ],
)
def test_natural_mistakes_are_one_line(words: list[Any], values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        run(*words, **values)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "values", "said"),
    [
        ((PaCoRe, "1?", Mock(model=MODEL)), {}, "is the class PaCoRe"),
        (("pacore", "1?", Mock(model=MODEL)), {}, "give a pacore_lab.Strategy"),
        ((PaCoRe([2]), 5, Mock(model=MODEL)), {}, "the problem is 5; give a question"),
        ((PaCoRe([2]), "1?", Mock), {}, "is the class Mock"),
        ((PaCoRe([2]), "1?", Mock(model=MODEL)), {"seed": 2**64}, "seed is"),
    ],
)
async def test_natural_mistakes_of_solve_are_one_line(
    arguments: tuple[Any, ...], values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        await solve(*arguments, **values)
