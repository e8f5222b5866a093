"""A half-done run on disk, to go on with after an interruption."""

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

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


def network_state(network: nn.Module) -> dict[str, Any]:
    """Return what restore_network needs: parameters, all buffers and modules' extra state."""
    # state_dict leaves out the buffers that are not persistent
    return {"state_dict": network.state_dict(), "buffers": dict(network.named_buffers())}


@torch.no_grad()
def restore_network(network: nn.Module, state: dict[str, Any]) -> None:
    """Bring a new network of the same architecture to a state; also buffers made in a forward."""
    for name, value in state["buffers"].items():
        module_name, _, buffer_name = name.rpartition(".")
        module = network.get_submodule(module_name)
        present = getattr(module, buffer_name, None)
        if present is not None and not is_lazy(present) and _alike(present, value):
            present.copy_(value)
        else:
            persistent = name in state["state_dict"]
            module.register_buffer(buffer_name, value, persistent=persistent)
    network.load_state_dict(state["state_dict"])


def _alike(first: torch.Tensor, second: torch.Tensor) -> bool:
    return (first.shape, first.dtype) == (second.shape, second.dtype)
