"""fastokens gives the Hugging Face tokenizer's ids, or is not used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burnish.data import fast_tokens
from burnish.data import tokenise as tokenise_module
from burnish.data.fast_tokens import CheckedFastTokenizer, FastTokensDiffer, load_fastokens
from row_builders import pair

Prepare = Callable[..., Any]
ROWS = [pair(f"what is {n}? \U0001f60a 中文", f"it is {n}", f"it is {n + 1}") for n in range(150)]


class WrongFrom:
    """A stand-in for fastokens whose ids are wrong from some text on."""

    def __init__(self, exact: Any, first: int) -> None:
        self.exact, self.left = exact, first

    def encode_batch_flat(self, texts: list[str], add_special_tokens: bool) -> tuple[bytes, bytes]:
        import numpy as np

        ids = [encoding.ids for encoding in self.exact.encode_batch(texts, add_special_tokens=add_special_tokens)]
        right, self.left = self.left, max(0, self.left - len(texts))
        ids = [one if n < right else [*one, 0] for n, one in enumerate(ids)]
        ends = np.cumsum([0, *map(len, ids)], dtype=np.uint64)
        return np.concatenate(ids).astype(np.uint32).tobytes(), ends.tobytes()


def test_ids_are_the_tokenizers_own(prepare: Prepare, tmp_path: Path) -> None:
    pytest.importorskip("fastokens")
    fast = prepare(ROWS)
    exact = prepare(ROWS, tokenizer_backend="huggingface")
    assert not exact.report.from_cache
    assert fast.groups.fingerprint == exact.groups.fingerprint


def test_fastokens_is_taken_where_it_is_installed(chatml: Any) -> None:
    pytest.importorskip("fastokens")
    assert isinstance(tokenise_module.choose_batch_tokenizer(chatml, "auto"), CheckedFastTokenizer)
    assert not isinstance(tokenise_module.choose_batch_tokenizer(chatml, "huggingface"), CheckedFastTokenizer)


@pytest.mark.parametrize("first", [0, 150, 320])
def test_where_ids_differ_the_work_begins_anew_without_it(
    first: int, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = prepare(ROWS, tokenizer_backend="huggingface")
    monkeypatch.setattr(tokenise_module, "load_fastokens", lambda backend: WrongFrom(backend, first))
    prepared = prepare(ROWS)
    warning = capsys.readouterr().err
    assert "gives other ids than the tokenizer for '" in warning
    assert "tokenised without it" in warning
    assert prepared.groups.fingerprint == expected.groups.fingerprint
    assert prepared.report.as_dict() == expected.report.as_dict()


def test_late_texts_are_sampled_too() -> None:
    exact = lambda texts, _: [[len(text)] for text in texts]  # noqa: E731

    class Fast:
        def encode_batch_flat(self, texts: list[str], _: bool) -> tuple[bytes, bytes]:
            import numpy as np

            ids = [len(text) + (text == "late") for text in texts]
            return np.array(ids, np.uint32).tobytes(), np.arange(len(texts) + 1, dtype=np.uint64).tobytes()

    tokenise = CheckedFastTokenizer(Fast(), exact)
    tokenise(["text"] * 1000, False)
    with pytest.raises(FastTokensDiffer, match="late"):
        tokenise(["late"] * fast_tokens.SAMPLE_EVERY, False)


def test_a_tokenizer_that_fastokens_cannot_read_is_left_to_its_own() -> None:
    pytest.importorskip("fastokens")

    class Unknown:
        def to_str(self) -> str:
            return '{"model": {"type": "Unheard"}}'

    assert load_fastokens(Unknown()) is None


def test_without_fastokens_nothing_is_loaded(chatml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_tokens, "fastokens_version", lambda: None)
    assert load_fastokens(chatml.backend_tokenizer) is None
