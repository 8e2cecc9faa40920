"""Every sentence exists in both languages, says the same values, and is used."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

import burnish.device.doctor as doctor
from burnish.device.doctor.chain import CHAIN
from burnish.device.doctor.faults import FAULTS
from burnish.device.doctor.messages import MESSAGES

FOLDER = Path(doctor.__file__).parent
FILES = [path for path in FOLDER.rglob("*.py") if path.parent.name != "messages"]
SOURCE = "\n".join(path.read_text() for path in [*FILES, FOLDER.parents[1] / "cli/doctor.py"])
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def names(pattern: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(pattern) if name}


@pytest.mark.parametrize("key", MESSAGES)
def test_both_languages_carry_the_same_values(key: str):
    message = MESSAGES[key]
    assert names(message.en) == names(message.zh)
    assert names(message.cure_en) == names(message.cure_zh)
    assert bool(message.cure_en) == bool(message.cure_zh)


def test_keys_and_uses_agree():
    topics = "|".join({key.split(".")[0] for key in MESSAGES})
    used = set(re.findall(rf"[\"']((?:{topics})\.\w+)[\"']", SOURCE))
    assert {key for key in used if not key.endswith((".py", ".info"))} == set(MESSAGES)


def test_every_warning_and_failure_has_a_cure():
    judged = set(re.findall(r"(?:warning|failure|failing)\(\s*[\"']([\w.]+)[\"']", SOURCE))
    assert judged
    assert [key for key in judged if not MESSAGES[key].cure_en] == []


def test_faults_and_labels_read_chinese_in_chinese():
    for fault in FAULTS:
        assert CHINESE.search(fault.cause.chinese), fault.name
        assert not CHINESE.search(fault.cause.english + fault.cure.english), fault.name
    for message in MESSAGES.values():
        assert not CHINESE.search(message.en + message.cure_en)
    assert len({link.name for link in CHAIN}) == len(CHAIN)
