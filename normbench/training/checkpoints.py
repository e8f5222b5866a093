"""A half-done run on disk, to go on with after an interruption."""

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# Seconds of training that are worth saving: what takes less is done again as fast.
INTERVAL = 5.0


class Checkpoint:
    """What a run needs to go on after one of its epochs, in ``file``.

    ``identity`` is what must be the same then: a checkpoint of another one is not used.
    """

    def __init__(self, file: Path, identity: str) -> None:
        self.file = file
        self.identity = identity
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the state that was saved last; None without one that can be used."""
        try:
            stored = torch.load(self.file, weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
            return None
        if not isinstance(stored, dict) or stored.get("identity") != self.identity:
            return None
        state: dict[str, Any] = stored["state"]
        return state

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Store a state of tensors and builtin types, whole or not at all, if it is worth it."""
        if time.monotonic() - self._saved < INTERVAL:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        torch.save({"identity": self.identity, "state": state()}, temporary)
        temporary.replace(self.file)
        self._saved = time.monotonic()

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)
