from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from burnish.errors import ConfigError, HubError, ModelError
from burnish.models.hub import resolve_model_path
from burnish.models.load import load_policy

ID = "Qwen/Qwen2-0.5B-Instruct"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub address where nobody listens, and an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_model_path("owner/name") == tmp_path / "owner" / "name"


@pytest.mark.usefixtures("no_network")
def test_an_unreachable_hub_is_told_in_one_line_within_seconds(
    capfd: pytest.CaptureFixture[str], settings_for: Callable[..., Any]
) -> None:
    start = time.monotonic()
    with pytest.raises(HubError) as caught:
        load_policy(settings_for(Path(ID)))
    assert time.monotonic() - start < 8
    message = str(caught.value)
    assert message == (
        f"the hub (http://127.0.0.1:9) can't be reached to fetch {ID}; "
        "give a local folder instead: --model_name_or_path ./folder"
    )
    assert caught.value.exit_code == 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("no_network")
def test_a_hub_that_never_answers_is_given_up_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", address, raising=False)
        monkeypatch.setattr("burnish.models.hub.PROBE_SECONDS", 0.5)
        start = time.monotonic()
        with pytest.raises(HubError):
            resolve_model_path(ID)
        assert 0.4 < time.monotonic() - start < 5


@pytest.mark.usefixtures("no_network")
def test_a_model_in_the_cache_needs_no_network(tmp_path: Path) -> None:
    repository = tmp_path / "cache" / "models--Qwen--Qwen2-0.5B-Instruct"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (snapshot / "config.json").write_text("{}")
    assert resolve_model_path(ID) == snapshot


@pytest.mark.parametrize("name", ["./missing", "/missing", "~/missing", "a/b/c", "missing/"])
def test_what_looks_like_a_path_never_asks_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burnish.models.hub._answers", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(ModelError, match="no folder"):
        resolve_model_path(name)


def test_an_impossible_id_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burnish.models.hub._answers", lambda *_: True)
    with pytest.raises(ModelError, match="neither a local folder nor a hub id"):
        resolve_model_path("my model!")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ("RepositoryNotFoundError", ModelError, "no model Qwen/"),
        ("GatedRepoError", ModelError, "hf auth login"),
        ("RevisionNotFoundError", ModelError, "has no revision v9"),
        ("LocalEntryNotFoundError", HubError, "can't be reached"),
        ("HfHubHTTPError", HubError, "can't be reached"),
    ],
)
def test_each_refusal_of_the_hub_has_its_message(
    error: str, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import errors

    def refuse(*_: Any, **__: Any) -> str:
        cause: type[Exception] = getattr(errors, error)
        raise cause.__new__(cause, "refused")

    monkeypatch.setattr("burnish.models.hub._answers", lambda *_: True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(kind, match=message):
        resolve_model_path(ID, revision="v9")


def test_only_what_is_safe_and_needed_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def fetch(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr("burnish.models.hub._answers", lambda *_: True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert resolve_model_path(ID, revision="v1") == tmp_path
    assert (asked["name"], asked["revision"]) == (ID, "v1")
    assert not [pattern for pattern in asked["allow_patterns"] if pattern.endswith((".bin", ".py", ".pt"))]
    resolve_model_path(ID, trust_remote_code=True)
    assert "*.py" in asked["allow_patterns"]


def test_modelscope_needs_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(ConfigError, match=r"pip install burnish\[modelscope\]"):
        resolve_model_path(ID, "modelscope")


def test_modelscope_fetches_from_its_default_branch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def fetch(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    client = ModuleType("modelscope")
    client.snapshot_download = fetch  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "modelscope", client)
    assert resolve_model_path(ID, "modelscope") == tmp_path
    assert (asked["name"], asked["revision"]) == (ID, None)

    def fail(*_: Any, **__: Any) -> str:
        raise RuntimeError("no route to host")

    client.snapshot_download = fail  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(HubError, match="no route to host"):
        resolve_model_path(ID, "modelscope")
