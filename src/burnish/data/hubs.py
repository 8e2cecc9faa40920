"""Data sets of a hub: Hugging Face through datasets, ModelScope through its own package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

from burnish.errors import BurnishError, ConfigError, DataError, HubError

PROBE_SECONDS = 5.0


def fetch_dataset(name: str, config: str | None, hub: Literal["huggingface", "modelscope"]) -> Mapping[str, Any]:
    """Fetch a data set, or find it in the hub library's cache.

    Returns:
        Split → datasets.Dataset.

    Raises:
        HubError: the hub is out of reach and the data set is in no cache.
        DataError: the hub has no such data set or configuration, or its rows cannot be read.
        ConfigError: modelscope is asked for and not installed.
    """
    fetch = _from_modelscope if hub == "modelscope" else _from_huggingface
    try:
        return fetch(name, config)
    except BurnishError:
        raise
    except Exception as error:
        raise _explain(error, name, hub) from error


def _from_huggingface(name: str, config: str | None) -> Mapping[str, Any]:
    from datasets import load_dataset

    # The library retries for half a minute; one short question first tells whether to ask at all.
    with nullcontext() if _answers(name) else _offline():
        return load_dataset(name, config)  # pyright: ignore[reportReturnType]


def _answers(name: str) -> bool:
    """Whether the hub answers within a few seconds; a refusal is an answer too."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        HfApi().dataset_info(name, timeout=PROBE_SECONDS)
    except (HfHubHTTPError, HFValidationError):
        return True
    except Exception:  # the client's transport errors change their class with its version; all mean "no answer"
        return False
    return True


@contextmanager
def _offline() -> Iterator[None]:
    """Have the hub's libraries look into their caches only."""
    from datasets import config
    from huggingface_hub import constants

    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _from_modelscope(name: str, config: str | None) -> Mapping[str, Any]:
    try:
        from modelscope.msdatasets import MsDataset  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("--hub modelscope needs its package: pip install burnish[modelscope]") from error
    fetched = MsDataset.load(name, subset_name=config or "default")
    splits = fetched if isinstance(fetched, Mapping) else {"train": fetched}
    return {
        str(split): rows.to_hf_dataset() if hasattr(rows, "to_hf_dataset") else rows for split, rows in splits.items()
    }


def _explain(error: Exception, name: str, hub: str) -> BurnishError:
    where = "ModelScope" if hub == "modelscope" else "the Hugging Face hub"
    if _is_unreachable(error):
        return HubError(
            f"{where} can't be reached to fetch {name}; give a local file or folder: --dataset_name ./rows.jsonl"
        )
    cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return DataError(f"{where} does not give {name}: {cause}")


def _is_unreachable(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConnectionError | TimeoutError) or type(seen).__name__ in _CONNECTION_FAULTS:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


# By name, because the libraries that raise them are dependencies of dependencies.
_CONNECTION_FAULTS = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "ReadTimeout",
        "ReadError",
        "ProxyError",
        "ConnectionError",
        "OfflineModeIsEnabled",
        "LocalEntryNotFoundError",
        "MaxRetryError",
        "NameResolutionError",
        "SSLError",
        "NetworkError",
        "TransportError",
    }
)
