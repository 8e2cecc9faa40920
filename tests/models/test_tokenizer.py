from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burnish.data.settings import DataSettings
from burnish.errors import ConfigError, ModelError
from burnish.models.settings import ModelSettings
from burnish.models.tokenizer import load_tokenizer

Make = Callable[..., Any]
CHAT = [{"role": "user", "content": "hello"}]


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "tokenizer_config.json"
    settings = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


def test_the_tokenizers_own_pad_token_is_kept(golden: Path, settings_for: Make) -> None:
    tokenizer = load_tokenizer(settings_for(golden), DataSettings())
    assert tokenizer.is_fast
    assert tokenizer.pad_token == "<pad>"


def test_without_a_pad_token_the_end_of_text_pads(golden: Path, settings_for: Make) -> None:
    edit(golden, pad_token=None)
    (golden / "config.json").unlink()
    assert load_tokenizer(settings_for(golden), DataSettings()).pad_token == "</s>"


def test_a_pad_token_that_the_model_cannot_embed_is_not_taken(golden: Path, settings_for: Make) -> None:
    edit(golden, pad_token="<invented>")
    assert load_tokenizer(settings_for(golden), DataSettings()).pad_token == "</s>"


def test_the_pad_token_asked_for_wins(golden: Path, settings_for: Make) -> None:
    assert load_tokenizer(settings_for(golden), DataSettings(pad_token="<s>")).pad_token == "<s>"


def test_an_unknown_pad_token_is_told_and_adds_nothing(golden: Path, settings_for: Make) -> None:
    with pytest.raises(ConfigError, match="--pad_token '<none>' is not in the model's vocabulary"):
        load_tokenizer(settings_for(golden), DataSettings(pad_token="<none>"))


def test_the_end_of_text_token_asked_for_wins_and_pads_in_need(golden: Path, settings_for: Make) -> None:
    edit(golden, pad_token=None)
    (golden / "config.json").unlink()
    tokenizer = load_tokenizer(settings_for(golden), DataSettings(eos_token="<s>"))
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "<s>")
    with pytest.raises(ConfigError, match="--eos_token '<none>' is not in the model's vocabulary"):
        load_tokenizer(settings_for(golden), DataSettings(eos_token="<none>"))


def test_no_token_to_pad_with_is_told(golden: Path, settings_for: Make) -> None:
    edit(golden, pad_token=None, eos_token=None)
    (golden / "config.json").unlink()
    with pytest.raises(ConfigError, match="--pad_token TOKEN"):
        load_tokenizer(settings_for(golden), DataSettings())


def test_a_jinja_file_replaces_the_chat_template(golden: Path, settings_for: Make, tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}")
    data = DataSettings(chat_template_path=str(tmp_path / "mine.jinja"))
    tokenizer = load_tokenizer(settings_for(golden), data)
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == "[user] hello"


def test_a_folder_with_a_tokenizer_lends_its_chat_template(golden: Path, settings_for: Make, tmp_path: Path) -> None:
    lender = load_tokenizer(settings_for(golden), DataSettings())
    lender.chat_template = "lent {{ messages[0].content }}"
    lender.save_pretrained(tmp_path / "lender")
    tokenizer = load_tokenizer(settings_for(golden), DataSettings(chat_template_path=str(tmp_path / "lender")))
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == "lent hello"


def test_a_template_that_refuses_the_trial_is_still_taken(golden: Path, settings_for: Make, tmp_path: Path) -> None:
    (tmp_path / "strict.jinja").write_text("{{ raise_exception('needs a system turn') }}")
    data = DataSettings(chat_template_path=str(tmp_path / "strict.jinja"))
    assert "raise_exception" in str(load_tokenizer(settings_for(golden), data).chat_template)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{% for m in messages %}\n{{ m.content }}", r"bad\.jinja, line"),
        ("  \n", "is empty"),
        (None, "No such file"),
    ],
)
def test_a_template_that_cannot_be_read_is_told(
    content: str | None, message: str, golden: Path, settings_for: Make, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "bad.jinja").write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_tokenizer(settings_for(golden), DataSettings(chat_template_path=str(tmp_path / "bad.jinja")))


def test_a_folder_without_template_is_told(golden: Path, settings_for: Make) -> None:
    with pytest.raises(ConfigError, match="has no chat template"):
        load_tokenizer(settings_for(golden), DataSettings(chat_template_path=str(golden)))


def test_a_template_has_no_way_to_pythons_insides(golden: Path, settings_for: Make, tmp_path: Path) -> None:
    (tmp_path / "evil.jinja").write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")
    data = DataSettings(chat_template_path=str(tmp_path / "evil.jinja"))
    tokenizer = load_tokenizer(settings_for(golden), data)
    with pytest.raises(Exception, match="unsafe"):
        tokenizer.apply_chat_template(CHAT, tokenize=False)


def test_a_folder_without_tokenizer_says_what_to_copy(golden: Path, settings_for: Make) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (golden / name).unlink()
    with pytest.raises(ModelError, match=r"golden has no tokenizer: copy tokenizer\.json"):
        load_tokenizer(settings_for(golden), DataSettings())


def test_a_broken_tokenizer_is_one_line(golden: Path, settings_for: Make) -> None:
    (golden / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="can't be loaded") as caught:
        load_tokenizer(settings_for(golden), DataSettings())
    assert "\n" not in str(caught.value)


def test_a_slow_tokenizer_is_refused(golden: Path, settings_for: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        is_fast = False

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: Slow())
    with pytest.raises(ModelError, match=r"\(Slow\) has no fast version"):
        load_tokenizer(settings_for(golden), DataSettings())


def test_a_tokenizer_may_not_name_files_elsewhere(golden: Path, settings_for: Make) -> None:
    (golden.parent / "secret.env").write_text("TOKEN=1")
    edit(golden, vocab_file="../secret.env")
    with pytest.raises(ModelError, match=r"outside its folder \(vocab_file"):
        load_tokenizer(settings_for(golden), DataSettings())


def test_traces_of_the_machine_that_made_a_tokenizer_harm_nobody(golden: Path, settings_for: Make) -> None:
    edit(golden, special_tokens_map_file="/home/somebody/.cache/special_tokens_map.json")
    assert load_tokenizer(settings_for(golden), DataSettings()).is_fast


def test_no_model_named_says_which_flag() -> None:
    with pytest.raises(ConfigError, match="--model_name_or_path"):
        load_tokenizer(ModelSettings(), DataSettings())
