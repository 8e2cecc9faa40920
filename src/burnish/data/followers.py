"""Prepared once a machine: one rank reads and tokenises, the others map the file that it wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from burnish.data.prepare import Prepared
from burnish.data.report import DataReport
from burnish.data.store import GroupStore
from burnish.device.ranks import Ranks

Sets = tuple[Prepared, dict[str, Prepared]]
"""Groups to train on, and the sets to evaluate on by their names."""


def prepare_once(ranks: Ranks, make: Callable[[], Sets]) -> Sets:
    """Let each machine's first rank prepare, while the others wait, and open on the others what it has prepared.

    Before any device is touched: preparation forks, which a process that holds an accelerator may not.
    """
    mine: list[Sets] = []

    def make_and_describe() -> list[Any]:
        mine.append(make())
        train, held_out = mine[0]
        return [_describe(train), {name: _describe(one) for name, one in held_out.items()}]

    described = ranks.once_a_machine("prepared data", make_and_describe)
    if mine:
        return mine[0]
    train, held_out = described
    return _open(train), {name: _open(one) for name, one in held_out.items()}


def _describe(prepared: Prepared) -> dict[str, Any]:
    groups = prepared.groups
    return {"path": str(groups.path), "fingerprint": groups.fingerprint, "report": prepared.report.as_dict()}


def _open(described: dict[str, Any]) -> Prepared:
    groups = GroupStore.open(described["path"], described["fingerprint"])
    return Prepared(groups, DataReport.from_dict(described["report"]))
