"""Help is made from the settings: each with its effect, unit, range and default."""

import dataclasses
import io
import re

import pytest

from burnish.cli.help import field_docs, print_help
from burnish.methods.dpo import DPOConfig, DPOSettings

NAMES = [field.name for field in dataclasses.fields(DPOConfig)]


def help_text(*, everything: bool) -> str:
    out = io.StringIO()
    print_help("dpo", DPOConfig, everything=everything, out=out)
    return out.getvalue()


def test_every_setting_has_a_docstring():
    docs = field_docs(DPOConfig)
    assert [name for name in NAMES if not docs.get(name)] == []


def test_help_all_shows_every_setting_with_its_default():
    text = help_text(everything=True)
    for name in NAMES:
        assert re.search(rf"^  --{name} .*", text, re.MULTILINE), name
    assert text.count("default") >= len(NAMES)


def test_help_shows_the_methods_own_and_the_most_used():
    text = help_text(everything=False)
    own = [field.name for field in dataclasses.fields(DPOSettings)]
    for name in [*own, "model_name_or_path", "dataset_name", "output_dir", "learning_rate", "use_peft"]:
        assert f"  --{name} " in text
    assert "--adam_beta1" not in text
    assert "--help-all" in text


@pytest.mark.parametrize("columns", ["50", "80", "200"])
def test_help_is_no_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: str):
    monkeypatch.setenv("COLUMNS", columns)
    assert max(len(line) for line in help_text(everything=True).splitlines()) <= int(columns)


def test_help_gives_unit_range_and_default():
    text = help_text(everything=False)
    beta = text[text.index("--beta") :].split("--", 2)[1]
    assert "default 0.1" in beta
    assert "1/nats" in beta
    assert "> 0" in beta
