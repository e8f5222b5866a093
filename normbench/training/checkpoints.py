"""A half-done run on disk, to go on with after an interruption."""

import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
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
        self._failed = False

    def restore(self, restore: Callable[[dict[str, Any]], None]) -> bool:
        """Hand the state that was saved last to ``restore``, if there is one that can be used.

        Returns False, with a warning, where that fails: what was to be restored is of no use then.
        """
        state = self._load()
        if state is None:
            return True
        try:
            restore(state)
        except Exception as error:  # a norm of the user's own restores itself as it likes
            self._warn("go on from", error, "the run starts from its beginning")
            return False
        return True

    def _load(self) -> dict[str, Any] | None:
        try:
            # on the CPU first: it may come from a GPU that this process has not
            stored = torch.load(self.file, map_location="cpu", weights_only=True)
            if stored["identity"] == self.identity:
                state: dict[str, Any] = stored["state"]
                return state
        except Exception:  # a damaged file may raise anything
            pass
        return None

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Store a state of tensors and builtin types, whole or not at all, if it is worth it.

        Warns once where that fails, as on a disk that is full: the run goes on without.
        """
        if time.monotonic() - self._saved < INTERVAL:
            return
        temporary = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"identity": self.identity, "state": state()}, temporary)
            temporary.replace(self.file)
        except Exception as error:  # torch's writer tells of a full disk in its own ways
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            if not self._failed:
                self._failed = True
                self._warn("save", error, "the run goes on without")
        self._saved = time.monotonic()

    def _warn(self, what: str, error: Exception, then: str) -> None:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        warnings.warn(f"cannot {what} the checkpoint {self.file}: {why}; {then}", stacklevel=3)


def network_state(network: nn.Module) -> dict[str, Any]:
    """Return what restore_network needs: parameters, all buffers and modules' extra state."""
    # state_dict leaves out the buffers that are not persistent
    return {"state_dict": network.state_dict(), "buffers": dict(network.named_buffers())}


@torch.no_grad()
def restore_network(network: nn.Module, state: dict[str, Any]) -> None:
    """Bring a new network of the same architecture to a state; also buffers made in a forward.

    The network stays on its device, wherever the state's tensors are.
    """
    device = next((p.device for p in network.parameters()), None)
    for name, value in state["buffers"].items():
        module_name, _, buffer_name = name.rpartition(".")
        module = network.get_submodule(module_name)
        present = getattr(module, buffer_name, None)
        if present is not None and not is_lazy(present) and _alike(present, value):
            present.copy_(value)
        else:
            persistent = name in state["state_dict"]
            module.register_buffer(buffer_name, value.to(device), persistent=persistent)
    network.load_state_dict(state["state_dict"])


def _alike(first: torch.Tensor, second: torch.Tensor) -> bool:
    return (first.shape, first.dtype) == (second.shape, second.dtype)
