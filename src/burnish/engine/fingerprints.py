"""Is a resumed run still the same run? Fingerprints say what must not have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from burnish.errors import ConfigError


def check_fingerprints(
    saved: Mapping[str, str], current: Mapping[str, str], allow_changed: Sequence[str] = ()
) -> dict[str, tuple[str | None, str | None]]:
    """Refuse to resume a run as another one; returns the changes that were allowed, as key: (old, new), for the record.

    Raises:
        ConfigError: something changed that is not in `allow_changed`, each with old and new value; or
            `allow_changed` names what is no fingerprint.
    """
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


def _show(value: str | None) -> str:
    return "(none)" if value is None else value
