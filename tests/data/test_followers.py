"""Rows are prepared by one process of each machine, before any device is touched; the others map what it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]

from burnish import DPOConfig, DPOTrainer
from burnish.data.followers import Sets, prepare_once
from burnish.data.prepare import data_cache_dir, prepare_groups
from burnish.data.settings import DataSettings
from burnish.data.sources import load_rows
from burnish.device.ranks import Ranks
from burnish.errors import ConfigError
from burnish.models.tokenizer import load_tokenizer
from jobs import POLICY, write_pairs


def _sets(pairs: Path) -> Sets:
    settings = DataSettings(dataset_name=str(pairs))
    config = DPOConfig(model_name_or_path=str(POLICY))
    prepared = prepare_groups(
        load_rows(settings), load_tokenizer(config, config), settings, cache_dir=data_cache_dir(settings)
    )
    return prepared, {"held out": prepared}


def test_a_machine_prepares_once_and_its_other_ranks_open_the_same_groups(tmp_path: Path) -> None:
    """Four ranks on two machines, one after another over the launcher's store."""
    store, made = HashStore(), []
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    opened = []
    for rank in range(4):

        def make(by: int = rank) -> Sets:
            made.append(by)
            return _sets(pairs)

        ranks = Ranks(rank=rank, size=4, local_rank=rank % 2, local_size=2, _store=store)
        opened.append(prepare_once(ranks, make))
    assert made == [0, 2]
    (first, _), *others = opened
    for train, held_out in others:
        assert train.groups.fingerprint == first.groups.fingerprint
        assert list(train.groups.num_tokens) == list(first.groups.num_tokens)
        assert train.report.as_dict() == first.report.as_dict()
        assert held_out["held out"].groups.fingerprint == first.groups.fingerprint


def test_rows_are_prepared_before_a_device_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparation forks, which a process that holds an accelerator may not."""
    monkeypatch.setattr("burnish.methods.opening.pick_device", _no_device)
    cache = tmp_path / "cache"
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    places = {"data_cache_dir": str(cache), "output_dir": str(tmp_path / "run")}
    config = DPOConfig(model_name_or_path=str(POLICY), dataset_name=str(pairs), **places)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="no device yet"):
        _ = DPOTrainer(args=config).session
    assert list(cache.rglob("*.arrow"))


def _no_device(*_: object, **__: object) -> None:
    raise ConfigError("no device yet")
