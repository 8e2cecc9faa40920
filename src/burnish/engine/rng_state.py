"""The random states of Python, NumPy and torch's CPU generator as tensors, without pickle."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

from burnish.errors import IntegrityError

if TYPE_CHECKING:
    from torch import Tensor

_NAMES = frozenset({"python.state", "python.gauss", "numpy.keys", "numpy.position", "numpy.gauss", "torch"})
_PYTHON_VERSION = 3


def pack_rng() -> dict[str, Tensor]:
    """The three random states as they stand, as small tensors that own their memory."""
    import numpy as np
    import torch

    _, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python.state": torch.tensor(words, dtype=torch.int64),
        "python.gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy.keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy.position": torch.tensor([position], dtype=torch.int64),
        "numpy.gauss": torch.tensor([cached] if has_gauss else [], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }


def restore_rng(state: Mapping[str, Tensor]) -> None:
    """Put the three random states back as `pack_rng` found them.

    Raises:
        IntegrityError: a state is missing, left over or malformed; some may have been restored.
    """
    import numpy as np
    import torch

    if set(state) != _NAMES:
        odd = sorted(set(state) ^ _NAMES)
        raise IntegrityError(f"the checkpoint's random states do not fit this version of burnish: {', '.join(odd)}")
    gauss, cached = state["python.gauss"].tolist(), state["numpy.gauss"].tolist()
    keys = np.asarray(state["numpy.keys"].numpy(), dtype=np.uint32)
    try:
        random.setstate((_PYTHON_VERSION, tuple(state["python.state"].tolist()), gauss[0] if gauss else None))
        np.random.set_state(
            ("MT19937", keys, int(state["numpy.position"]), int(bool(cached)), cached[0] if cached else 0.0)
        )
        torch.set_rng_state(state["torch"])
    except (ValueError, TypeError, RuntimeError) as error:
        raise IntegrityError(f"the checkpoint's random states are malformed: {error}") from error
