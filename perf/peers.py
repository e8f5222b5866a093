"""Compare the training loop with its peers: same network, images, batch size, recipe and epochs.

    python perf/peers.py --bench-data DIR                images a second, in alternating rounds
    python perf/peers.py --bench-data DIR --to-accuracy  core-seconds until 99.4 % on MNIST

The peers read MNIST as tutorials have it: torchvision's data set, transforms of one PIL image at
a time, a DataLoader. Needs the extra `perf`. Nothing else should run on the machine meanwhile.
"""

import argparse
import itertools
import json
import logging
import multiprocessing
import os
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "torch")

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms
from tqdm import tqdm

from models.networks import build_network
from normbench.data import default_root, load_dataset
from normbench.recipes import AFFINE, RECIPES
from normbench.scheduling import available_cores
from normbench.session import processor_name
from normbench.spec import RunSpec
from normbench.trainer import train

CPU = torch.device("cpu")
MEAN, STD = 0.1307, 0.3081
RECIPE = RECIPES["mnist"]
TARGET = 0.994

# The augmentation of the recipe `mnist`, one PIL image at a time.
EQUAL_RECIPE = transforms.Compose(
    [
        transforms.RandomAffine(
            AFFINE.rotation,
            translate=(AFFINE.shift / 28, AFFINE.shift / 28),
            scale=(1 - AFFINE.scale, 1 + AFFINE.scale),
            # torchvision's shear is an angle
            shear=5.7,
            interpolation=transforms.InterpolationMode.BILINEAR,
        ),
        transforms.CenterCrop(24),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
)

# That of the published tables: rotation, affine map and colour jitter.
PUBLISHED_RECIPE = transforms.Compose(
    [
        transforms.ColorJitter(brightness=0.1, contrast=0.1),
        transforms.RandomRotation(7),
        transforms.RandomAffine(0, translate=(0.05, 0.05), scale=(0.95, 1.05), shear=5),
        transforms.CenterCrop(24),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
)

EVALUATION = transforms.Compose(
    [transforms.CenterCrop(24), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
)


class Workload(NamedTuple):
    """What every contender trains."""

    data: Path
    norm: str
    batch_size: int
    images: int
    epochs: int
    l1: float

    @property
    def steps(self) -> int:
        return self.images // self.batch_size * self.epochs

    def spec(self, seed: int) -> RunSpec:
        return RunSpec(
            "mnist",
            "mnist",
            self.norm,
            l1=self.l1,
            batch_size=self.batch_size,
            epochs=self.epochs,
            seed=seed,
            train_images=self.images,
        )

    def loader(self, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
        images: Dataset[Any] = datasets.MNIST(self.data, train=True, transform=EQUAL_RECIPE)
        part = Subset(images, range(self.images))
        return DataLoader(part, self.batch_size, shuffle=True, num_workers=workers, drop_last=True)

    def optimizer(
        self, network: nn.Module
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        peak = RECIPE.peak_learning_rate(self.batch_size)
        sgd = torch.optim.SGD(network.parameters(), peak, RECIPE.momentum, nesterov=True)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            sgd,
            peak,
            total_steps=self.steps + 1,
            pct_start=RECIPE.warmup,
            cycle_momentum=False,
        )
        return sgd, cycle


class Measurement(NamedTuple):
    """Wall-clock and processor seconds that a contender took for the training of ``images``."""

    images: int
    seconds: float
    core_seconds: float

    @property
    def images_a_second(self) -> float:
        return self.images / self.seconds


def core_seconds() -> float:
    """Return the processor seconds of this process and of its children that have ended."""
    usages = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measured(images: int, action: Callable[[], None]) -> Measurement:
    cores, start = core_seconds(), time.perf_counter()
    action()
    return Measurement(images, time.perf_counter() - start, core_seconds() - cores)


def textbook_epoch(
    network: nn.Module,
    loader: DataLoader[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    l1: float,
    label_smoothing: float,
) -> None:
    """Train an epoch as tutorials do: the penalty through autograd, a progress bar, `.item()`."""
    network.train()
    correct = seen = 0
    progress = tqdm(loader, disable=None, leave=False)
    for images, labels in progress:
        optimizer.zero_grad()
        logits = network(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        if l1:
            loss = loss + l1 * sum(p.abs().sum() for p in network.parameters())
        loss.backward()
        optimizer.step()
        schedule.step()
        correct += (logits.argmax(1) == labels).sum().item()
        seen += len(labels)
        progress.set_description(f"loss={loss.item():.4f} accuracy={100 * correct / seen:.2f}")


def textbook(workload: Workload, workers: int) -> Measurement:
    torch.set_num_threads(available_cores())
    network = build_network("mnist", workload.norm)
    optimizer, schedule = workload.optimizer(network)
    loader = workload.loader(workers)

    def epochs() -> None:
        for _ in range(workload.epochs):
            textbook_epoch(
                network, loader, optimizer, schedule, workload.l1, RECIPE.label_smoothing
            )

    return measured(workload.images * workload.epochs, epochs)


def lightning(workload: Workload, workers: int) -> Measurement:
    """Train with PyTorch Lightning's Trainer, without checkpoints, logs and validation."""
    import lightning.pytorch as pl

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(available_cores())

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = build_network("mnist", workload.norm)

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            images, labels = batch
            logits = self.network(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=RECIPE.label_smoothing)
            if workload.l1:
                loss = loss + workload.l1 * sum(p.abs().sum() for p in self.network.parameters())
            return loss

        def configure_optimizers(self) -> Any:
            optimizer, schedule = workload.optimizer(self.network)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": schedule, "interval": "step"},
            }

    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=workload.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module, loader = Module(), workload.loader(workers)
    return measured(workload.images * workload.epochs, lambda: trainer.fit(module, loader))


def keras(workload: Workload, workers: int) -> Measurement:
    """Train with Keras 3 on torch: `fit` with the same network, wrapped, and the same loader."""
    import keras

    torch.set_num_threads(available_cores())
    network = build_network("mnist", workload.norm)

    class OneCycle(keras.callbacks.Callback):
        """Sets each step's learning rate, as torch's schedule has it."""

        def __init__(self) -> None:
            super().__init__()
            optimizer, schedule = workload.optimizer(network)
            self.rates = []
            for _ in range(workload.steps):
                self.rates.append(schedule.get_last_lr()[0])
                optimizer.step()
                schedule.step()
            self.step = 0

        def on_train_batch_begin(self, _: int, logs: Any = None) -> None:  # noqa: ARG002
            self.model.optimizer.learning_rate = self.rates[self.step]
            self.step += 1

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.network = keras.layers.TorchModuleWrapper(network)

        def call(self, images: Tensor, training: bool = False) -> Tensor:
            logits: Tensor = self.network(images, training=training)
            if workload.l1:
                self.add_loss(workload.l1 * sum(p.abs().sum() for p in network.parameters()))
            return logits

    def cross_entropy(labels: Tensor, logits: Tensor) -> Tensor:
        return F.cross_entropy(
            logits, labels.long().flatten(), label_smoothing=RECIPE.label_smoothing
        )

    model = Model()
    model.compile(keras.optimizers.SGD(0.1, RECIPE.momentum, nesterov=True), loss=cross_entropy)
    callback, loader = OneCycle(), workload.loader(workers)

    def fit() -> None:
        model.fit(loader, epochs=workload.epochs, verbose=0, callbacks=[callback])

    return measured(workload.images * workload.epochs, fit)


def _engine_run(workload: Workload, seed: int) -> float:
    torch.set_num_threads(1)
    data = load_dataset("mnist", workload.data, CPU)
    result = train(workload.spec(seed), data, CPU)
    return result.train_seconds + result.test_seconds


class Engine:
    """This engine in ``workers`` processes of one thread each, as `pytest bench -n` runs it.

    The processes live on between rounds, as xdist's do between cases. Its evaluations, which the
    others are spared, count against it.
    """

    def __init__(self, workload: Workload, workers: int) -> None:
        self.workload, self.workers = workload, workers
        self.pool = multiprocessing.get_context("spawn").Pool(workers)
        self.round()

    def round(self) -> Measurement:
        jobs = [(self.workload, seed) for seed in range(self.workers)]
        start = time.perf_counter()
        core = sum(self.pool.starmap(_engine_run, jobs, chunksize=1))
        images = self.workload.images * self.workload.epochs * self.workers
        return Measurement(images, time.perf_counter() - start, core)


def contenders(workload: Workload) -> Iterator[tuple[str, Callable[[], Measurement]]]:
    """Yield each contender's name and what runs a round of it."""
    yield "normbench -n 2", Engine(workload, 2).round
    yield "normbench -n 1", Engine(workload, 1).round
    for workers in (0, 2):
        yield f"textbook loop, {workers} loader workers", lambda w=workers: textbook(workload, w)
    yield "Lightning, 2 loader workers", lambda: lightning(workload, 2)
    yield "Keras 3 on torch, 2 loader workers", lambda: keras(workload, 2)


def compare(workload: Workload, rounds: int) -> list[dict[str, Any]]:
    """Run all contenders in turn, ``rounds`` times; return a row each.

    The ratio of a round is that of two neighbours in time, so that a machine whose speed drifts
    moves both of its sides.
    """
    entries = list(contenders(workload))
    speeds: dict[str, list[float]] = {name: [] for name, _ in entries}
    for number, (name, run) in itertools.product(range(1, rounds + 1), entries):
        speeds[name].append(run().images_a_second)
        print(f"round {number}: {name}: {speeds[name][-1]:,.0f} images a second", flush=True)
    fastest = speeds["normbench -n 2"]
    rows = []
    for name, values in speeds.items():
        ratios = [ours / theirs for ours, theirs in zip(fastest, values, strict=True)]
        rows.append(
            {
                "contender": name,
                "images a second, median": statistics.median(values),
                "normbench -n 2 is faster by": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
                "rounds": len(values),
            }
        )
    return rows


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Draw a bar a contender, with the median written at its end."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    names = [row["contender"] for row in rows][::-1]
    values = [row["images a second, median"] for row in rows][::-1]
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(rows) + 1), layout="constrained")
    colors = ["#0072b2" if name.startswith("normbench") else "#999999" for name in names]
    bars = axes.barh(names, values, color=colors)
    axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3)
    axes.set_xlabel("training images a second, median of the rounds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.savefig(file, dpi=150)


@torch.inference_mode()
def accuracy(network: nn.Module, loader: DataLoader[tuple[Tensor, Tensor]]) -> float:
    network.eval()
    right = sum((network(x).argmax(1) == y).sum().item() for x, y in loader)
    return right / len(loader.dataset)


def textbook_to_accuracy(data: Path, norm: str, seed: int) -> Iterator[tuple[int, float, float]]:
    """Train as the published tables were; yield epoch, test accuracy and core-seconds so far."""
    torch.set_num_threads(available_cores())
    torch.manual_seed(seed)
    network = build_network("mnist", norm, dropout=0.03)
    train_set = datasets.MNIST(data, train=True, transform=PUBLISHED_RECIPE)
    test_set = datasets.MNIST(data, train=False, transform=EVALUATION)
    loader = DataLoader(train_set, 64, shuffle=True, num_workers=2)
    tests = DataLoader(test_set, 64, num_workers=2)
    optimizer = torch.optim.SGD(network.parameters(), 0.015, momentum=0.7)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.015, epochs=20, steps_per_epoch=len(loader)
    )
    before = core_seconds()
    for epoch in range(1, 21):
        textbook_epoch(network, loader, optimizer, schedule, 0.0, 0.0)
        yield epoch, accuracy(network, tests), core_seconds() - before


def engine_to_accuracy(data: Path, norm: str, seed: int) -> Iterator[tuple[int, float, float]]:
    """Train as `pytest bench` does; yield epoch, test accuracy and core-seconds so far."""
    torch.set_num_threads(1)
    spec = RunSpec("mnist", "mnist", norm, batch_size=64, epochs=EPOCHS, seed=seed)
    result = train(spec, load_dataset("mnist", data, CPU), CPU)
    share = result.cpu_seconds / (result.train_seconds + result.test_seconds)
    spent = 0.0
    for epoch in result.epochs:
        spent += (epoch.train_seconds + epoch.test_seconds) * share
        yield epoch.epoch, epoch.test_accuracy, spent


# As in bench/cases/mnist.toml.
EPOCHS = 8


def to_accuracy(data: Path, norm: str, seeds: int) -> list[dict[str, Any]]:
    """Return, for both, the core-seconds until an epoch first ended at TARGET or above."""
    rows = []
    for (name, run), seed in itertools.product(
        (("normbench", engine_to_accuracy), ("textbook", textbook_to_accuracy)), range(seeds)
    ):
        row: dict[str, Any] = {"loop": name, "seed": seed, "reached in epoch": None}
        for epoch, reached, spent in run(data, norm, seed):
            print(f"{name}, seed {seed}: epoch {epoch}: {100 * reached:.2f} %, {spent:.0f} s")
            row |= {"core-seconds": spent, "test accuracy (%)": 100 * reached}
            if reached >= TARGET:
                row["reached in epoch"] = epoch
                break
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bench-data", type=Path, default=default_root(), help="the data root")
    parser.add_argument("--norm", default="group:2")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=12_800, help="of each epoch")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--l1", type=float, default=1e-5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--to-accuracy", action="store_true")
    parser.add_argument("--seeds", type=int, default=1, help="with --to-accuracy")
    parser.add_argument("--output", type=Path, default=Path("results/perf"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    options.output.mkdir(parents=True, exist_ok=True)
    if options.to_accuracy:
        name, rows = "to-accuracy", to_accuracy(options.bench_data, options.norm, options.seeds)
    else:
        workload = Workload(
            options.bench_data,
            options.norm,
            options.batch_size,
            options.images,
            options.epochs,
            options.l1,
        )
        name, rows = "peers", compare(workload, options.rounds)
        draw(rows, options.output / "peers.png")
    table = tabulate(rows, headers="keys", tablefmt="pipe", floatfmt=",.1f")
    machine = f"{processor_name()}, {available_cores()} cores, torch {torch.__version__}"
    (options.output / f"{name}.md").write_text(f"{machine}\n\n{table}\n")
    (options.output / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"\n{machine}\n\n{table}")


if __name__ == "__main__":
    main()
