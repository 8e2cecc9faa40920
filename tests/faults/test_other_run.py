"""Resuming as another run is refused with a diff of what changed, and goes on, recorded, where that is allowed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from burnish.engine.manifest import read_manifest, write_manifest
from faults.harness import (
    Job,
    assert_equal_runs,
    checkpoint,
    contents,
    copy_run,
    make_model,
    rewrite_manifest,
    state,
)


def edited(data: Path, folder: Path) -> Path:
    lines = data.read_text().splitlines(keepends=True)
    row = json.loads(lines[40])
    row["chosen"][0]["content"] += "a"
    lines[40] = json.dumps(row) + "\n"
    path = folder / "edited.jsonl"
    path.write_text("".join(lines))
    return path


def with_gap(data: Path, folder: Path) -> Path:
    """The same groups, and a row among them that is dropped, as its completions are one."""
    lines = data.read_text().splitlines(keepends=True)
    row = json.loads(lines[40])
    lines.insert(20, json.dumps(row | {"chosen": row["rejected"]}) + "\n")
    path = folder / "gap.jsonl"
    path.write_text("".join(lines))
    return path


def other_template(folder: Path) -> Path:
    path = folder / "other.jinja"
    path.write_text(
        "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<assistant> {% endif %}"
    )
    return path


CHANGES: dict[str, Any] = {
    "an edited row": ("data", lambda tiny: ["--dataset_name", edited(tiny.data, tiny.folder)]),
    "a dropped row elsewhere": ("data", lambda tiny: ["--dataset_name", with_gap(tiny.data, tiny.folder)]),
    "fewer rows": ("data", lambda tiny: ["--max_train_samples", 60]),
    "seed": ("seed", lambda tiny: ["--seed", 7]),
    "batch size": ("global_batch_size", lambda tiny: ["--per_device_train_batch_size", 4]),
    "accumulation": ("global_batch_size", lambda tiny: ["--gradient_accumulation_steps", 1]),
    "max_length": ("data", lambda tiny: ["--max_length", 40]),
    "template": ("data", lambda tiny: ["--chat_template_path", other_template(tiny.folder)]),
    "base model": ("base_model", lambda tiny: ["--model_name_or_path", make_model(tiny.folder / "other", seed=5)]),
    "learning rate": ("learning_rate", lambda tiny: ["--learning_rate", 2e-3]),
    "loss": ("loss_type", lambda tiny: ["--loss_type", "ipo"]),
    "beta": ("beta", lambda tiny: ["--beta", 0.5]),
    "length of the run": ("total_steps", lambda tiny: ["--num_train_epochs", 3]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_run_is_refused_with_a_diff_and_recorded_where_it_is_allowed(
    change: str, tiny: Job, killed: Path
) -> None:
    run = copy_run(killed, tiny.path("run"))
    before = contents(run)
    key, flags = CHANGES[change]
    words = flags(tiny)
    error = tiny.resume("run", *words, expect=2).err
    first, cure = error.splitlines()[-2:]
    assert f"{key}: " in first
    assert " -> " in first
    assert "--allow_changed" in cure
    assert contents(run) == before
    allowed = cure.split("--allow_changed ")[1].split()
    tiny.resume("run", *words, "--allow_changed", *allowed)
    (resumption,) = state(run)["resumptions"]
    assert sorted(resumption["changed"]) == sorted(allowed)
    assert all(old != new for old, new in resumption["changed"].values())


def test_the_same_batch_in_other_words_is_the_same_run(tiny: Job, killed: Path, golden: Path) -> None:
    run = copy_run(killed, tiny.path("run"))
    tiny.resume("run", "--per_device_train_batch_size", 4, "--gradient_accumulation_steps", 1)
    assert_equal_runs(run, golden)


def test_a_moved_data_set_is_the_same_data(tiny: Job, killed: Path, golden: Path) -> None:
    run = copy_run(killed, tiny.path("run"))
    moved = tiny.folder / "elsewhere.jsonl"
    moved.write_bytes(tiny.data.read_bytes())
    tiny.resume("run", "--dataset_name", moved)
    assert_equal_runs(run, golden)


def test_moved_caches_are_the_same_run(tiny: Job, killed: Path, golden: Path) -> None:
    run = copy_run(killed, tiny.path("run"))
    tiny.resume("run", "--reference_cache_dir", tiny.folder / "scores", "--data_cache_dir", tiny.folder / "rows")
    assert_equal_runs(run, golden)


def written_by_another_version(run: Path, *, without: str = "", **more: tuple[str, str]) -> None:
    """Let the newest checkpoint lack a setting, or know more of them than we do, each by its (value, default)."""
    folder = checkpoint(run, 9)
    path = folder / "counters.json"
    counters = json.loads(path.read_text())
    defaults = counters["default_settings"]
    defaults.pop(without, None)
    defaults |= {name: default for name, (_, default) in more.items()}
    counters["loop"]["of_a_later_version"] = 1
    path.write_text(json.dumps(counters))
    rewrite_manifest(folder)
    manifest = read_manifest(folder)
    kept = {name: value for name, value in manifest.fingerprints.items() if name != without}
    kept |= {name: value for name, (value, _) in more.items()}
    write_manifest(folder, replace(manifest, fingerprints=kept))


def test_a_setting_that_an_older_version_did_not_have_counts_as_its_default(
    tiny: Job, killed: Path, golden: Path
) -> None:
    run = copy_run(killed, tiny.path("run"))
    written_by_another_version(run, without="label_smoothing")
    error = tiny.resume("run", "--label_smoothing", 0.1, expect=2).err
    assert "label_smoothing: 0 -> 0.1" in error
    tiny.resume("run")
    assert state(run)["resumptions"][0]["changed"] == {}
    assert_equal_runs(run, golden)


def test_a_setting_of_a_later_version_counts_as_unchanged_only_at_its_default(
    tiny: Job, killed: Path, golden: Path
) -> None:
    run = copy_run(killed, tiny.path("run"))
    written_by_another_version(run, sharpness=("3", "3"))
    tiny.resume("run")
    assert_equal_runs(run, golden)
    other = copy_run(killed, tiny.path("other"))
    written_by_another_version(other, sharpness=("3", "2"))
    assert "sharpness: 3 -> 2" in tiny.resume("other", expect=2).err
    tiny.resume("other", "--allow_changed", "sharpness")
    assert state(other)["resumptions"][0]["changed"] == {"sharpness": ["3", "2"]}


def test_a_key_that_does_not_exist_is_named_with_those_that_do(tiny: Job, killed: Path) -> None:
    copy_run(killed, tiny.path("run"))
    error = tiny.resume("run", "--allow_changed", "sede", expect=2).err
    assert "--allow_changed sede" in error
    assert "seed" in error
