"""The training loops that perf compares: this engine, the textbook's, Lightning's and Keras's.

The peers read MNIST as tutorials have it: torchvision's data set, transforms of one PIL image at
a time, a DataLoader. All evaluate the test images after each epoch.
"""

import logging
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "torch")

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms
from tqdm import tqdm

from normbench.engine.devices import tune_malloc
from normbench.models.networks import build_network
from normbench.spec import RunSpec, regularizer_name
from normbench.storage.environment import available_cores
from normbench.training.data import load_dataset
from normbench.training.recipes import AFFINE, RECIPES
from normbench.training.trainer import train

CPU = torch.device("cpu")
MEAN, STD = 0.1307, 0.3081
RECIPE = RECIPES["mnist"]

PREPARATION = (
    transforms.CenterCrop(24),
    transforms.ToTensor(),
    transforms.Normalize(MEAN, STD),
)

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
        *PREPARATION,
    ]
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
            regularizer=regularizer_name({"l1": self.l1}),
            batch_size=self.batch_size,
            epochs=self.epochs,
            seed=seed,
            train_images=self.images,
        )

    def loader(self, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
        images: Dataset[Any] = datasets.MNIST(self.data, train=True, transform=EQUAL_RECIPE)
        part = Subset(images, range(self.images))
        return DataLoader(part, self.batch_size, shuffle=True, num_workers=workers, drop_last=True)

    def tests(self, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
        return test_loader(self.data, self.batch_size, workers)

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


def test_loader(data: Path, batch_size: int, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
    images = datasets.MNIST(data, train=False, transform=transforms.Compose(PREPARATION))
    return DataLoader(images, batch_size, num_workers=workers)


@torch.inference_mode()
def accuracy(network: nn.Module, loader: DataLoader[tuple[Tensor, Tensor]]) -> float:
    network.eval()
    right = sum((network(x).argmax(1) == y).sum().item() for x, y in loader)
    return right / len(loader.dataset)


class Measurement(NamedTuple):
    """Wall-clock and processor seconds that a contender took for epochs of ``images`` in all."""

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
    progress = tqdm(loader, leave=False)
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
    loader, tests = workload.loader(workers), workload.tests(workers)

    def epochs() -> None:
        for _ in range(workload.epochs):
            textbook_epoch(
                network, loader, optimizer, schedule, workload.l1, RECIPE.label_smoothing
            )
            accuracy(network, tests)

    return measured(workload.images * workload.epochs, epochs)


def lightning(workload: Workload, workers: int) -> Measurement:
    """Train with PyTorch Lightning's Trainer, without checkpoints and logs."""
    import lightning.pytorch as pl

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(available_cores())

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = build_network("mnist", workload.norm)
            self.right = 0

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            images, labels = batch
            logits = self.network(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=RECIPE.label_smoothing)
            if workload.l1:
                loss = loss + workload.l1 * sum(p.abs().sum() for p in self.network.parameters())
            return loss

        def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
            images, labels = batch
            self.right += (self.network(images).argmax(1) == labels).sum().item()

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
        num_sanity_val_steps=0,
    )
    module, loader, tests = Module(), workload.loader(workers), workload.tests(workers)
    return measured(workload.images * workload.epochs, lambda: trainer.fit(module, loader, tests))


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

        # Keras calls it with these names, used or not
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
    model.compile(
        keras.optimizers.SGD(0.1, RECIPE.momentum, nesterov=True),
        loss=cross_entropy,
        metrics=["sparse_categorical_accuracy"],
    )
    callback, loader, tests = OneCycle(), workload.loader(workers), workload.tests(workers)

    def fit() -> None:
        model.fit(
            loader,
            epochs=workload.epochs,
            verbose=0,
            callbacks=[callback],
            validation_data=tests,
        )

    return measured(workload.images * workload.epochs, fit)


def engine_seconds(workload: Workload, seed: int) -> float:
    torch.set_num_threads(1)
    tune_malloc()
    data = load_dataset("mnist", workload.data, CPU)
    result = train(workload.spec(seed), data, CPU)
    return result.train_seconds + result.test_seconds


class Engine:
    """This engine in ``workers`` processes of one thread each, as `pytest bench -n` runs it.

    The processes live on between rounds, as xdist's do between cases.
    """

    def __init__(self, workload: Workload, workers: int) -> None:
        self.workload, self.workers = workload, workers
        self.pool = multiprocessing.get_context("spawn").Pool(workers)
        self.round()

    def round(self) -> Measurement:
        jobs = [(self.workload, seed) for seed in range(self.workers)]
        start = time.perf_counter()
        core = sum(self.pool.starmap(engine_seconds, jobs, chunksize=1))
        images = self.workload.images * self.workload.epochs * self.workers
        return Measurement(images, time.perf_counter() - start, core)
