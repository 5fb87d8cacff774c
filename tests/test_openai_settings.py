"""The OpenAI-compatible backend's settings: addresses, the key, what is refused, what the fingerprint names."""

from __future__ import annotations

from typing import Any

import pytest

from backends.openai import OpenAI
from pacore_lab.errors import RequestError
from pacore_lab.types import Model
from tests.asking import answering, ask, closed_port
from tests.servers import RecordingServer


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ("http://h:8000", "http://h:8000/v1"),
        ("http://h:8000/", "http://h:8000/v1"),
        ("http://h:8000/v1/", "http://h:8000/v1"),
        (" http://h:8000/v1/chat/completions ", "http://h:8000/v1"),
        ("https://h/api/v1", "https://h/api/v1"),
        ("https://h/v1beta/openai/", "https://h/v1beta/openai"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_base_url(given: str, root: str) -> None:
    assert OpenAI(model=Model(name="m"), base_url=given).roots == (root,)


@pytest.mark.parametrize(
    "url",
    ["", "h:8000", "localhost:8000/v1", "ftp://h", "http://", "http://h:eighty", "http://h:99999", "http://h/v1?a=b",
     "http://a b/v1", "http://user:secret@h/v1"],
)  # fmt: skip
def test_a_nonsense_base_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"backend\.base_url is .*such as http://127\.0\.0\.1:8000/v1") as caught:
        OpenAI(model=Model(name="m"), base_url=url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"api_key_env": "sk-secret"}, "backend.api_key_env takes the NAME"),
        ({"connect_timeout": 0}, "backend.connect_timeout is 0"),
        ({"idle_timeout": -1}, "backend.idle_timeout is -1"),
        ({"extra_body": {"seed": 1, "n": 4}}, "backend.extra_body sets n, seed"),
    ],
)
def test_bad_settings_are_refused_by_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        OpenAI(model=Model(name="m"), base_url="http://h", **settings)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("settings", "words"), [({"health_interval": 0}, "health_interval"), ({"patience": -1}, "p")])
def test_bad_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=rf"backend\.{words}"):
        OpenAI(model=Model(name="m"), base_url="http://h", **settings)


async def test_the_key_comes_from_the_named_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sesame-123")
    async with RecordingServer() as server:
        await ask(server, api_key_env="SOME_KEY")
        await ask(server)
    assert server.headers[0]["Authorization"] == "Bearer sesame-123"
    assert "Authorization" not in server.headers[1]


async def test_the_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sesame-123")
    async with RecordingServer(reply=answering(400, "bad key? sesame-123")) as server:
        with pytest.raises(RequestError, match=r"bad key\? \*\*\*"):
            await ask(server, api_key_env="SOME_KEY")
    assert "sesame" not in repr(OpenAI(model=Model(name="m"), base_url="http://h", api_key_env="SOME_KEY"))


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    async with RecordingServer() as server:
        assert (await ask(server)).content


def test_the_fingerprint_names_what_shapes_a_sample() -> None:
    def named(extra_body: dict[str, Any] | None = None, **model: Any) -> str:
        return OpenAI(model=Model(name="m", **model), base_url="http://h", extra_body=extra_body or {}).fingerprint

    assert named() == "openai:http://h/v1:m"
    assert named(revision="v2") == "openai:http://h/v1:m@v2"
    different = [named(), named(revision="v2"), named({"top_k": 1}), named(chat_template_kwargs={"top_k": 1})]
    assert len(set(different)) == 4
    assert named({"a": 1, "b": 2}) == named({"b": 2, "a": 1})


def test_capabilities() -> None:
    backend = OpenAI(model=Model(name="m"), base_url="http://h")
    assert (backend.capabilities.seeds, backend.capabilities.logprobs) == ("request", "chosen")
    assert backend.capabilities.partial
    assert OpenAI(model=Model(name="m"), base_url="http://h", seed=False).capabilities.seeds == "none"
