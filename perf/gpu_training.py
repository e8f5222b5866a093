"""Stages of gpu.py: the machine's facts, and single runs of MNIST."""

import dataclasses
import hashlib
import importlib.metadata
import itertools
import os
import platform
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from normbench.spec import RunSpec
from normbench.storage.environment import available_cores, processor
from normbench.training.checkpoints import network_state
from normbench.training.data import load_dataset
from normbench.training.steps import CapturedStep, Step
from normbench.training.trainer import Training, on_device, training_batches

NEEDED = (
    *("torch", "torchvision", "numpy", "scipy", "pandas", "pytest", "pytest-xdist", "filelock"),
    *("jinja2", "matplotlib", "pillow", "platformdirs", "pydantic", "rich", "scikit-learn"),
    *("tabulate", "timm", "triton"),
)


class Setup(NamedTuple):
    """What each stage is told: the device, the data root, its folder and its seconds.

    A ``quick`` one trains on few images, to show that the program runs.
    """

    device: str
    data: Path
    folder: Path
    seconds: float
    quick: bool

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def images(self) -> int | None:
        return 640 if self.quick else None


Tell = Callable[[dict[str, Any]], None]


def output_of(*command: str) -> str:
    """Return what a command wrote, or why it could not be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}: {error}"
    return (done.stdout + done.stderr).strip()


def versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in NEEDED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def float32_settings() -> dict[str, Any]:
    """Return what decides how float32 is computed on a GPU."""
    cudnn = torch.backends.cudnn
    return {
        "cudnn.allow_tf32": cudnn.allow_tf32,
        "matmul precision": torch.get_float32_matmul_precision(),
        "cudnn.benchmark": cudnn.benchmark,
        "cudnn.deterministic": cudnn.deterministic,
    }


def facts(setup: Setup, tell: Tell) -> None:
    """Say what the machine is, and what is missing on it."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **processor(),
        "cores": available_cores(),
        "packages": versions(),
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "MPS": shutil.which("nvidia-cuda-mps-control"),
        "nvidia-smi": output_of("nvidia-smi"),
        "cuda of torch": torch.version.cuda,
        "float32 as found": float32_settings(),
    }
    found["missing"] = [name for name, version in found["packages"].items() if version is None]
    missing = f"; missing: {', '.join(found['missing'])}" if found["missing"] else ""
    rest = f"{found['cores']} cores, torch {torch.__version__}{missing}"
    tell({**found, "told": f"no GPU, {rest}"})
    if setup.on_gpu:
        with on_device(torch.device(setup.device)):
            found["float32 in a run"] = float32_settings()
        properties = torch.cuda.get_device_properties(setup.device)
        query = "driver_version,memory.total,clocks.sm,clocks.max.sm,compute_mode,pstate"
        found |= {
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
            "properties": str(properties),
            "queried": output_of("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"),
            "cudnn": torch.backends.cudnn.version(),
            "sum of ones": torch.ones(1000, device=setup.device).sum().item(),
        }
        tell({**found, "told": f"{properties.name}, {rest}"})


class Recorded:
    """A step whose logits are kept."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.logits: list[Tensor] = []

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        self.logits.append(self.step(images, labels))
        return self.logits[-1]


class Trained(NamedTuple):
    """A run, with all logits of its training steps, and a digest of the network it ended with."""

    epochs: list[dict[str, Any]]
    logits: Tensor
    digest: str
    captured: bool
    memory: float
    warnings: list[str]

    def row(self, name: str, spec: RunSpec) -> dict[str, Any]:
        last = self.epochs[-1]
        return {
            "run": name,
            "norm": spec.norm,
            "dropout": spec.dropout,
            "captured": self.captured,
            "test accuracy (%)": 100 * last["test_accuracy"],
            "training seconds of the last epoch": last["train_seconds"],
            "evaluation seconds of it": last["test_seconds"],
            "training seconds of the first epoch": self.epochs[0]["train_seconds"],
            "GiB of the GPU, at most": self.memory,
            "digest": self.digest,
            "warnings": self.warnings,
        }


def digest_of(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(network_state(network)["state_dict"].items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def as_in_a_run(device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with on_device(device), torch.random.fork_rng(devices=devices):
        yield


def trained(spec: RunSpec, setup: Setup, *, plain: bool = False, **cudnn: bool) -> Trained:
    """Train as normbench does; ``plain`` without a graph, ``cudnn`` with other settings of it."""
    device = torch.device(setup.device)
    data = load_dataset(spec.dataset, setup.data, device)
    with as_in_a_run(device), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for setting, value in cudnn.items():
            setattr(torch.backends.cudnn, setting, value)
        training = Training.begin(spec, data, device)
        captured = training.step if isinstance(training.step, CapturedStep) else None
        if captured is not None and plain:
            training.step = captured.step
        recorded = training.step = Recorded(training.step)
        training.run(lambda _: None)
    return Trained(
        [dataclasses.asdict(epoch) for epoch in training.epochs],
        torch.stack(recorded.logits).cpu(),
        digest_of(training.network),
        captured is not None and captured.replay not in (None, captured.step),
        torch.cuda.max_memory_reserved(device) / 2**30 if setup.on_gpu else 0.0,
        sorted({str(each.message) for each in caught}),
    )


def compared(name: str, one: Trained, other: Trained) -> dict[str, Any]:
    """Say from which step on two runs differ, and by how much at that step and at the end."""
    differs = (one.logits != other.logits).flatten(1).any(1).nonzero().flatten().tolist()
    apart = (one.logits - other.logits).abs().flatten(1).amax(1)
    return {
        "runs": name,
        "equal to the bit": one.digest == other.digest and not differs,
        "first step that differs": differs[0] + 1 if differs else None,
        "by at most, in a logit": apart[differs[0]].item() if differs else 0.0,
        "by at most in the last step": apart[-1].item(),
        "steps": len(apart),
        "difference of test accuracies (points)": 100
        * (other.epochs[-1]["test_accuracy"] - one.epochs[-1]["test_accuracy"]),
    }


def mnist_spec(setup: Setup, norm: str, epochs: int = 2, dropout: float = 0.0) -> RunSpec:
    return RunSpec(
        "mnist", "mnist", norm, epochs=epochs, dropout=dropout, train_images=setup.images
    )


def run(setup: Setup, tell: Tell) -> None:
    """Train MNIST captured and plain: does it learn, how fast, and what is equal to the bit?"""
    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []

    def take(name: str, spec: RunSpec, plain: bool = False, **cudnn: bool) -> Trained:
        found = trained(spec, setup, plain=plain, **cudnn)
        rows.append(found.row(name, spec))
        print(rows[-1], flush=True)
        report()
        return found

    def pair(name: str, one: Trained, other: Trained) -> None:
        pairs.append(compared(name, one, other))
        print(pairs[-1], flush=True)
        report()

    def report(**more: Any) -> None:
        first = rows[0]
        told = f"{first['test accuracy (%)']:.2f} % after 2 epochs, captured: {first['captured']}"
        equal = [p["runs"] for p in pairs if p["equal to the bit"]]
        told += f"; equal to the bit: {', '.join(equal) or 'none'} (of {len(pairs)} pairs)"
        tell({"told": told, "rows": rows, "pairs": pairs, **more})

    for norm in ("batch", "group:4"):
        spec = mnist_spec(setup, norm)
        captured = take("captured", spec)
        pair(f"{norm}: captured twice", captured, take("captured again", spec))
        pair(f"{norm}: captured and plain", captured, take("plain", spec, plain=True))
    free = take("captured, cuDNN free", mnist_spec(setup, "batch"), deterministic=False)
    again = take("captured, cuDNN free, again", mnist_spec(setup, "batch"), deterministic=False)
    pair("batch: cuDNN free, twice", free, again)
    take("captured, TF32", mnist_spec(setup, "batch"), allow_tf32=True, deterministic=False)
    take("captured, cuDNN measures", mnist_spec(setup, "batch"), benchmark=True)
    spec = mnist_spec(setup, "batch", epochs=1, dropout=0.1)
    captured = take("captured, dropout", spec)
    pair("dropout: captured and plain", captured, take("plain, dropout", spec, plain=True))
    report(after_failure=after_failed_capture(setup))


def look(_: torch.nn.Module, __: object, output: Tensor) -> None:
    """Wait for a value, which no graph can."""
    output.mean().item()


def after_failed_capture(setup: Setup) -> dict[str, Any]:
    """Say whether a process can go on after a capture that failed: it may poison what follows."""
    if not setup.on_gpu:
        return {"skipped": "nothing is captured on the CPU"}
    device = torch.device(setup.device)
    spec = mnist_spec(setup, "batch", epochs=1)
    data = load_dataset(spec.dataset, setup.data, device)
    found: dict[str, Any] = {}
    with as_in_a_run(device), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        training = Training.begin(spec, data, device)
        next(iter(training.network.children())).register_forward_hook(look)
        for what, action in (
            ("two steps of a norm that looks at a value", lambda: steps_of(training, 2)),
            ("random numbers", lambda: torch.rand(3, device=device).sum().item()),
            ("dropout", lambda: F.dropout(torch.ones(9, device=device)).sum().item()),
            ("another run, captured", lambda: trained(spec, setup, plain=False).captured),
        ):
            try:
                found[what] = repr(action())
            except Exception as error:
                found[what] = f"{type(error).__name__}: {error}"
    return {**found, "warnings": [str(each.message) for each in caught]}


def batches_of(training: Training) -> Iterator[tuple[Tensor, Tensor]]:
    size = training.image_size
    while True:
        yield from training_batches(
            training.data,
            training.spec,
            training.recipe,
            size,
            training.generator,
            training.order(),
        )


def steps_of(training: Training, count: int) -> float:
    """Take steps as an epoch does; return the mean loss."""
    training.network.train()
    losses = [
        F.cross_entropy(training.step(images, labels), labels)
        for images, labels in itertools.islice(batches_of(training), count)
    ]
    return torch.stack(losses).mean().item()
