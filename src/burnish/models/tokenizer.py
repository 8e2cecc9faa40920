"""The tokenizer that comes beside a model, with the padding and chat template that the settings ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.data.settings import DataSettings
from burnish.errors import ConfigError, ModelError
from burnish.models.folder import CONFIG, check_tokenizer_files, read_json
from burnish.models.hub import resolve_model_path
from burnish.models.quiet import quiet_transformers
from burnish.models.settings import ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")


def load_tokenizer(settings: ModelSettings, data: DataSettings) -> PreTrainedTokenizerBase:
    """Load the fast tokenizer beside the model, with its end-of-text and pad token and its chat template settled.

    The pad token is data.pad_token, else the tokenizer's own, else its end-of-text token; a token that the model has no
    embedding for is not taken. Padding never counts and is masked everywhere, so the choice changes no result.

    Raises:
        ModelError: no tokenizer in the folder, none that is fast, or one that names files elsewhere.
        ConfigError: an unknown end-of-text or pad token, or a chat template that cannot be read.
    """
    if settings.model_name_or_path is None:
        raise ConfigError("no model given: --model_name_or_path takes a local folder or a hub id")
    folder = resolve_model_path(
        settings.model_name_or_path,
        data.hub,
        settings.model_revision,
        trust_remote_code=settings.trust_remote_code,
    )
    tokenizer = read_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    return settle_tokenizer(tokenizer, data, num_embeddings=_num_embeddings(folder))


def settle_tokenizer(
    tokenizer: PreTrainedTokenizerBase, data: DataSettings, *, num_embeddings: int | None = None
) -> PreTrainedTokenizerBase:
    """Give a tokenizer the end-of-text token, the pad token and the chat template that the settings ask for.

    Args:
        tokenizer: changed in place.
        data: eos_token, pad_token and chat_template_path are used.
        num_embeddings: rows of the model's embedding; None takes the tokenizer's word.

    Raises:
        ConfigError: as load_tokenizer.
    """
    if data.eos_token is not None:
        _check_token(tokenizer, "eos_token", data.eos_token, num_embeddings)
        tokenizer.eos_token = data.eos_token
    set_pad_token(tokenizer, data.pad_token, num_embeddings=num_embeddings)
    if data.chat_template_path is not None:
        set_chat_template(tokenizer, Path(data.chat_template_path))
    return tokenizer


def stop_at_end_of_text(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a model stop at its tokenizer's end-of-text token too, besides where it has stopped."""
    config = getattr(model, "generation_config", None)  # a reward model has none
    if config is None or tokenizer.eos_token_id is None:
        return
    ends = [config.eos_token_id] if isinstance(config.eos_token_id, int) else list(config.eos_token_id or ())
    if tokenizer.eos_token_id not in ends:
        config.eos_token_id = [tokenizer.eos_token_id, *ends]


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds the files of a tokenizer."""
    return any((folder / name).is_file() for name in _FILES)


def read_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the fast tokenizer of a local folder as it is.

    Raises:
        ModelError: as load_tokenizer.
    """
    from transformers import AutoTokenizer

    if not has_tokenizer(folder):
        raise ModelError(f"{folder} has no tokenizer: copy tokenizer.json and tokenizer_config.json beside the weights")
    check_tokenizer_files(folder)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), use_fast=True, trust_remote_code=trust_remote_code, local_files_only=True
            )
    except Exception as error:  # dozens of tokenizer classes fail in as many ways
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "" if trust_remote_code or "remote" not in str(error) else " (--trust_remote_code if you trust it)"
        raise ModelError(f"the tokenizer in {folder} can't be loaded: {cause}{hint}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"the tokenizer in {folder} ({type(tokenizer).__name__}) has no fast version; put its tokenizer.json "
            "beside the weights (many models have it in a newer revision)"
        )
    return tokenizer


def set_pad_token(
    tokenizer: PreTrainedTokenizerBase, pad_token: str | None, *, num_embeddings: int | None = None
) -> None:
    """Settle the pad token: the one asked for, else the tokenizer's own, else its end-of-text token.

    Args:
        tokenizer: changed in place.
        pad_token: the one asked for.
        num_embeddings: rows of the model's embedding; some tokenizer classes invent a pad token beyond them.

    Raises:
        ConfigError: the token asked for is not in the vocabulary, or there is none to take.
    """
    vocabulary = tokenizer.get_vocab()
    limit = num_embeddings or len(vocabulary)
    if pad_token is not None:
        _check_token(tokenizer, "pad_token", pad_token, num_embeddings)
        tokenizer.pad_token = pad_token
    elif tokenizer.pad_token is None or vocabulary.get(str(tokenizer.pad_token), limit) >= limit:
        if tokenizer.eos_token is None:
            raise ConfigError("the tokenizer has neither a pad nor an end-of-text token; name one: --pad_token TOKEN")
        tokenizer.pad_token = tokenizer.eos_token


def _check_token(tokenizer: PreTrainedTokenizerBase, setting: str, token: str, num_embeddings: int | None) -> None:
    """Raise ConfigError for a token that is not in the vocabulary, or that the model has no embedding for."""
    vocabulary = tokenizer.get_vocab()
    limit = num_embeddings or len(vocabulary)
    if vocabulary.get(token, limit) >= limit:
        raise ConfigError(f"--{setting} {token!r} is not in the model's vocabulary; name one of its tokens")


def check_vocabulary(highest_id: int, num_embeddings: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse rows with tokens that the model cannot embed; a device would fail on them without a reason.

    Args:
        highest_id: the highest token id of all rows.
        num_embeddings: rows of the model's embedding.
        tokenizer: the one that made the ids.

    Raises:
        ModelError: the tokenizer is another model's.
    """
    if highest_id >= num_embeddings:
        token = tokenizer.convert_ids_to_tokens(highest_id)
        raise ModelError(
            f"the rows hold token {highest_id} ({token!r}), and the model embeds only {num_embeddings:,} tokens: the "
            "tokenizer is another model's. Put the tokenizer files that came with the weights beside them"
        )


def embeddings_of(settings: ModelSettings, data: DataSettings) -> int | None:
    """Return how many tokens the model embeds, as its config says; None where it does not say.

    Raises:
        As load_tokenizer.
    """
    if settings.model_name_or_path is None:
        return None
    return _num_embeddings(resolve_model_path(settings.model_name_or_path, data.hub, settings.model_revision))


def _num_embeddings(folder: Path) -> int | None:
    """Rows of the model's embedding as its config says, where the folder has one."""
    if not (folder / CONFIG).is_file():
        return None
    config = read_json(folder / CONFIG)
    size = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    return size if isinstance(size, int) else None


def set_chat_template(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Replace a tokenizer's chat template by that of a Jinja file, or of a folder with a tokenizer.

    Raises:
        ConfigError: nothing there, no template in the folder, or Jinja that does not parse.
    """
    from jinja2 import TemplateSyntaxError

    tokenizer.chat_template = _read_chat_template(path)
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
    except TemplateSyntaxError as error:
        raise ConfigError(f"--chat_template_path {path}, line {error.lineno}: {error.message}") from error
    except Exception:  # templates are programs: one may refuse this conversation and still suit the data
        return


def _read_chat_template(path: Path) -> str:
    path = path.expanduser()
    if path.is_dir():
        template = read_tokenizer(path).chat_template
        if isinstance(template, dict):
            template = template.get("default")
        if not template:
            raise ConfigError(f"--chat_template_path {path}: the tokenizer in this folder has no chat template")
        return template
    try:
        template = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"--chat_template_path {path}: {cause}; give a Jinja file or a folder with a tokenizer"
        ) from error
    if not template.strip():
        raise ConfigError(f"--chat_template_path {path}: the file is empty")
    return template
