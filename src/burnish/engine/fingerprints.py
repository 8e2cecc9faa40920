"""Is a resumed run still the same run? Fingerprints say what must not have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from burnish.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Defaults:
    """What settings are worth where one of two versions of burnish does not know them: it has done as by default."""

    saved: Mapping[str, str] = field(default_factory=dict)
    """Of all settings, in the version that wrote the checkpoint."""
    current: Mapping[str, str] = field(default_factory=dict)
    """Of all settings, in this version."""


def check_fingerprints(
    saved: Mapping[str, str],
    current: Mapping[str, str],
    allow_changed: Sequence[str] = (),
    defaults: Defaults | None = None,
) -> dict[str, tuple[str | None, str | None]]:
    """Refuse to resume a run as another one; returns the changes that were allowed, as key: (old, new), for the record.

    A setting that the checkpoint's version did not have counts as having had this version's default; one that only the
    checkpoint's version knows, as being at that version's default now.

    Raises:
        ConfigError: something changed that is not in `allow_changed`, each with old and new value; or
            `allow_changed` names what is no fingerprint.
    """
    if defaults is not None:
        saved, current = (
            {**_of_unknown(defaults.current, saved, current), **saved},
            {**_of_unknown(defaults.saved, current, saved), **current},
        )
    keys = [*current, *(key for key in saved if key not in current)]
    unknown = [key for key in allow_changed if key not in keys]
    if unknown:
        raise ConfigError(f"--allow_changed {unknown[0]}: no such key; there are {', '.join(keys)}")
    changes = {key: (saved.get(key), current.get(key)) for key in keys if saved.get(key) != current.get(key)}
    refused = [key for key in changes if key not in allow_changed]
    if refused:
        diff = "; ".join(f"{key}: {_show(changes[key][0])} -> {_show(changes[key][1])}" for key in refused)
        raise ConfigError(
            f"the checkpoint belongs to another run: {diff}\n"
            f"restore the old values, or accept the change with --allow_changed {' '.join(refused)}"
        )
    return changes


def _of_unknown(defaults: Mapping[str, str], one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """Defaults of what stands in the other only."""
    return {key: defaults[key] for key in other if key not in one and key in defaults}


def _show(value: str | None) -> str:
    return "(none)" if value is None else value
