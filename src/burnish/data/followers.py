"""Prepared once a machine: one rank reads and tokenises, the others map the file that it wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from burnish.data.prepare import Prepared
from burnish.data.report import DataReport
from burnish.data.store import GroupStore
from burnish.device.ranks import Ranks

Sets = tuple[Prepared, Prepared | None]
"""Groups to train on, and to evaluate on."""


def prepare_once(ranks: Ranks, make: Callable[[], Sets]) -> Sets:
    """Let each machine's first rank prepare, while the others wait, and open on the others what it has prepared.

    Before any device is touched: preparation forks, which a process that holds an accelerator may not.
    """
    mine: list[Sets] = []

    def make_and_describe() -> list[dict[str, Any] | None]:
        mine.append(make())
        return [_describe(one) for one in mine[0]]

    described = ranks.once_a_machine("prepared data", make_and_describe)
    if mine:
        return mine[0]
    train, evaluation = (None if one is None else _open(one) for one in described)
    assert train is not None
    return train, evaluation


def _describe(prepared: Prepared | None) -> dict[str, Any] | None:
    if prepared is None:
        return None
    groups = prepared.groups
    return {"path": str(groups.path), "fingerprint": groups.fingerprint, "report": prepared.report.as_dict()}


def _open(described: dict[str, Any]) -> Prepared:
    groups = GroupStore.open(described["path"], described["fingerprint"])
    return Prepared(groups, DataReport.from_dict(described["report"]))
