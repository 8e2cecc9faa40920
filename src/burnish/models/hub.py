"""From the name of a model to a local folder: a folder as it is, a Hugging Face id, or a ModelScope id."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from burnish.errors import BurnishError, ConfigError, HubError, ModelError
from burnish.models.quiet import quiet_transformers

Hub = Literal["huggingface", "modelscope"]

# Weights come as safetensors only: pickles are neither loaded nor fetched, nor other frameworks' copies of them.
FETCHED_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "model*.safetensors", "adapter_model*.safetensors"]
PROBE_SECONDS = 5.0


def resolve_model_path(
    name: str,
    hub: Hub = "huggingface",
    revision: str = "main",
    *,
    trust_remote_code: bool = False,
    flag: str = "--model_name_or_path",
    weights: bool = True,
) -> Path:
    """Find the local folder of a model or adapter, fetching it from its hub where it is no local folder.

    Args:
        name: a folder, or a hub id such as Qwen/Qwen2-0.5B-Instruct.
        hub: where ids are looked up.
        revision: branch, tag or commit of a hub model; a local folder ignores it.
        trust_remote_code: fetch the Python files too.
        flag: the setting that a message about a wrong name should mention.
        weights: fetch them too.

    Returns:
        The folder, absolute.

    Raises:
        ModelError: no such folder, or the hub has no such model (or does not show it to you).
        HubError: the hub is out of reach and the model is in no cache; raised within a few seconds.
        ConfigError: modelscope is asked for and not installed.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.absolute()
    if folder.is_file():
        raise ModelError(f"{name} is a file; give the folder that holds config.json and the weights: {flag} ./folder")
    if _looks_local(name):
        raise ModelError(f"no folder {name}; give a local folder or a hub id: {flag} ./folder")
    patterns = [*FETCHED_FILES, "*.py"] if trust_remote_code else FETCHED_FILES
    if not weights:
        patterns = [pattern for pattern in patterns if not pattern.endswith(".safetensors")]
    fetch = _from_modelscope if hub == "modelscope" else _from_huggingface
    return Path(fetch(name, revision, patterns, flag)).absolute()


def _looks_local(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or "\\" in name


def _unreachable(name: str, where: str, flag: str) -> HubError:
    return HubError(f"{where} can't be reached to fetch {name}; give a local folder instead: {flag} ./folder")


def _from_huggingface(name: str, revision: str, patterns: list[str], flag: str) -> str:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # The client retries a file for half a minute; one short question first tells whether to ask at all.
    offline = constants.HF_HUB_OFFLINE or not _answers(name, revision)
    try:
        with quiet_transformers():
            return snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=offline)
    except GatedRepoError as error:
        raise ModelError(
            f"{name} is gated: accept its licence on {constants.ENDPOINT}/{name} and log in (hf auth login)"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{name} has no revision {revision}; see {constants.ENDPOINT}/{name}/tree/main") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"no model {name} on {constants.ENDPOINT} (or it is private: hf auth login)") from error
    except HFValidationError as error:
        raise ModelError(f"{name!r} is neither a local folder nor a hub id (owner/name): {flag} ./folder") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise _unreachable(name, f"the hub ({constants.ENDPOINT})", flag) from error


def _answers(name: str, revision: str) -> bool:
    """Whether the hub answers within a few seconds; a refusal is an answer too."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().model_info(name, revision=revision, timeout=PROBE_SECONDS)
    except (HfHubHTTPError, HFValidationError):
        return True
    except Exception:  # the client's transport errors change their class with its version; all mean "no answer"
        return False
    return True


def _from_modelscope(name: str, revision: str, patterns: list[str], flag: str) -> str:
    try:
        from modelscope import snapshot_download  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("--hub modelscope needs its client: pip install burnish[modelscope]") from error
    # "main" is the default of the other hub; this one calls its default branch master.
    wanted = None if revision == "main" else revision
    try:
        return snapshot_download(name, revision=wanted, allow_patterns=patterns)
    except BurnishError:
        raise
    except Exception as error:
        cause = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise HubError(
            f"ModelScope can't fetch {name} ({cause}); give a local folder instead: {flag} ./folder"
        ) from error
