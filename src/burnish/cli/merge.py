"""`burnish merge RUN OUT`: the adapter of a run, written into its base."""

from __future__ import annotations

from pathlib import Path


def run_merge(run: Path, out: Path) -> None:
    """Merge a run's adapter into its base model and say where the result is.

    Args:
        run: a run directory, or a folder with an adapter.
        out: the folder to write; it must not exist.

    Raises:
        ConfigError: `out` exists.
        ModelError: no adapter in `run`, or its base is not found.
        HubError: the base is on a hub that is out of reach.
        IntegrityError: `out` could not be written, or does not compute what base and adapter do.
    """
    from burnish.models.merge import merge_adapter

    folder = merge_adapter(run, out)
    print(f"merged model: {folder} (loads with AutoModelForCausalLM; same logits as base and adapter on a probe)")
