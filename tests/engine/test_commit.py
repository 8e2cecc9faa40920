"""A file is replaced whole or not at all, and its hash is that of what was written."""

from __future__ import annotations

import hashlib
import os

import pytest

from burnish.engine.commit import FileEntry, hash_file, is_temporary, replace_file, temporary_name, write_file
from burnish.engine.plain_json import dump_json, parse_json

CONTENT = bytes(range(256)) * 1000


def test_the_hash_made_while_writing_is_that_of_the_file(tmp_path):
    entry = write_file(tmp_path / "f", [CONTENT[:7], memoryview(CONTENT)[7:], b""])
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert entry == FileEntry("f", len(CONTENT), hashlib.sha256(CONTENT).hexdigest()) == hash_file(tmp_path / "f")


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_all_of_them(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:1000]))
    write_file(tmp_path / "f", [CONTENT])
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_failure_leaves_the_old_file_and_no_temporary_one(tmp_path):
    replace_file(tmp_path / "f", b"old")

    def chunks():
        yield b"new"
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        write_file(tmp_path / "f", chunks())
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


def test_a_link_planted_under_the_temporary_name_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text("secret")
    temporary_name(tmp_path / "f").symlink_to(tmp_path / "secret")
    assert is_temporary(temporary_name(tmp_path / "f"))
    with pytest.raises(OSError, match="symbolic links"):
        write_file(tmp_path / "f", [b"x"])
    assert (tmp_path / "secret").read_text() == "secret"


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "{", "", '{"a": -Infinity}', "[" * 100_000])
def test_what_is_no_strict_json_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


def test_a_key_that_json_would_turn_into_a_string_is_refused():
    with pytest.raises(TypeError, match=r"value\.a: the key 1"):
        dump_json({"a": {1: 2}})
