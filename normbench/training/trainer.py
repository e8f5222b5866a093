"""The training loop: a pure function of the spec, the data and the code."""

import dataclasses
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from normbench.models.networks import build_network, check_network, count_parameters, seen_shape
from normbench.models.regularizers import find_regularizers
from normbench.results import Epoch, Mistake, RunResult
from normbench.spec import RunSpec
from normbench.training.augmentation import augment, center_crop, normalize_
from normbench.training.checkpoints import Checkpoint, network_state, restore_network
from normbench.training.checks import check_images, check_recipe, check_regularizer, shape_of
from normbench.training.data import ImageData
from normbench.training.datasets import find_dataset
from normbench.training.fingerprints import code_digest, fingerprint
from normbench.training.optimizers import build_optimizer, build_schedule
from normbench.training.probes import Statistics, activation_statistics, by_layer, weight_histogram
from normbench.training.recipes import Recipe, find_recipe
from normbench.training.steps import CapturedStep, FlatParameters, Step, TrainingStep
from normbench.training.whitening import first_convolution, spread, whiten

# Images that are augmented at once: enough to amortize the calls, few enough to stay in the cache.
CHUNK_IMAGES = 2048
# Few enough for CIFAR-10's largest map to be a block that is kept (tune_malloc): with 500,
# evaluation took 1.3 times as long.
EVALUATION_BATCH = 250
KEPT_MISTAKES = 32


@dataclass(frozen=True)
class Evaluation:
    """Logits of shape ``(N, classes)`` with their labels, and what follows from them."""

    logits: Tensor
    labels: Tensor

    @property
    def loss(self) -> float:
        return F.cross_entropy(self.logits, self.labels).item()

    @property
    def accuracy(self) -> float:
        return (self.logits.argmax(1) == self.labels).double().mean().item()

    def confusion(self) -> tuple[tuple[int, ...], ...]:
        classes = self.logits.shape[1]
        cells = torch.bincount(self.labels * classes + self.logits.argmax(1), minlength=classes**2)
        return tuple(map(tuple, cells.view(classes, classes).tolist()))

    def misclassified(self) -> Tensor:
        """Return the indices of the wrongly classified images."""
        return (self.logits.argmax(1) != self.labels).nonzero().flatten()

    def mistakes(self, limit: int = KEPT_MISTAKES) -> tuple[Mistake, ...]:
        """Return the wrongly classified images, the most confidently wrong first."""
        confidence, predicted = self.logits.softmax(1).max(1)
        wrong = self.misclassified()
        wrong = wrong[confidence[wrong].argsort(descending=True)][:limit]
        columns = (wrong, self.labels[wrong], predicted[wrong], confidence[wrong])
        return tuple(Mistake(*row) for row in zip(*(c.tolist() for c in columns), strict=True))


def seed_everything(seed: int) -> None:
    """Seed torch's global random numbers, and Python's and NumPy's, which own code may draw."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def other_random_numbers() -> tuple[Any, Any]:
    """Return the states of Python's and NumPy's global random numbers, in builtin types."""
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), (kind, np.asarray(keys).tolist(), *rest)


def set_other_random_numbers(states: tuple[Any, Any]) -> None:
    """Go back to what other_random_numbers returned."""
    random.setstate(states[0])
    np.random.set_state(states[1])


@contextmanager
def random_numbers_kept(devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Leave the global random numbers as they were found."""
    others = other_random_numbers()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            set_other_random_numbers(others)


def losses_of(trained: Evaluation) -> Tensor:
    """Return the cross-entropy of each image, in float64: none come close enough to change places.

    So whoever has the same logits selects the same images.
    """
    return F.cross_entropy(trained.logits.double(), trained.labels, reduction="none")


def greatest(losses: Tensor, count: int) -> Tensor:
    """Return the indices of the ``count`` greatest losses, ascending; of equal ones the first."""
    return losses.argsort(descending=True, stable=True)[:count].sort().values


def drawn_order(images: Tensor, batch_size: int, generator: torch.Generator) -> Tensor:
    """Return indices in a new random order; those of an incomplete last batch are left out."""
    order = torch.randperm(len(images), generator=generator, device=generator.device)
    return images[order[: len(images) // batch_size * batch_size]]


def training_batches(
    data: ImageData,
    spec: RunSpec,
    recipe: Recipe,
    size: int,
    generator: torch.Generator,
    order: Tensor,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the training images that ``order`` has, augmented, in batches."""
    chunk = max(1, CHUNK_IMAGES // spec.batch_size) * spec.batch_size
    for indices in order.split(chunk):
        images = data.train_images[indices].float()
        images = augment(images, recipe.augmentation, size, generator)
        images = normalize_(images, data.mean, data.std)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = data.train_labels[indices]
        yield from zip(images.split(spec.batch_size), labels.split(spec.batch_size), strict=True)


def train_epoch(
    network: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], step: Step, schedule: LRScheduler
) -> Evaluation:
    """Take a step for each batch; return what the network answered on the way.

    Nothing here waits for the device: the logits are kept, and looked at when the epoch is over.
    """
    network.train()
    answers, truths = [], []
    for images, labels in batches:
        answers.append(step(images, labels))
        truths.append(labels)
        schedule.step()
    return Evaluation(torch.cat(answers), torch.cat(truths))


# no inference mode: a tensor that a norm keeps from this could not be used in the next epoch
@torch.no_grad()
def evaluate(
    network: nn.Module, images: Tensor, labels: Tensor, test_time_flip: bool = False
) -> Evaluation:
    """Return the network's answers in evaluation mode; ``images`` are prepared already.

    With ``test_time_flip``, each is the mean of the answers to an image and its mirror image.
    A GPU takes them all at once: a network this small leaves it waiting for launches otherwise.
    """
    network.eval()
    size = len(images) if images.is_cuda else EVALUATION_BATCH
    answers = [network(batch) for batch in images.split(size)]
    if test_time_flip:
        mirrored = [network(batch.flip(3)) for batch in images.split(size)]
        answers = [(one + other) / 2 for one, other in zip(answers, mirrored, strict=True)]
    return Evaluation(torch.cat(answers), labels)


def prepare_images(images: Tensor, data: ImageData, size: int) -> Tensor:
    """Return uint8 images as the network takes them when it is evaluated."""
    prepared = normalize_(center_crop(images, size).float(), data.mean, data.std)
    return prepared.contiguous(memory_format=torch.channels_last)


@contextmanager
def on_device(device: torch.device) -> Iterator[None]:
    """Make a GPU the current one, with float32 that is float32, and leave all as it was found.

    What is launched with no word of its device goes to the current one. cuDNN takes convolutions
    in TF32, with a mantissa of 10 bits, unless it is told not to, and then always chooses kernels
    in the same way, among those that add in a fixed order.
    """
    if device.type != "cuda":
        yield
        return
    precision = torch.get_float32_matmul_precision()
    exact = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with torch.cuda.device(device), exact:
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)


def train(
    spec: RunSpec,
    data: ImageData,
    device: torch.device,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    checkpoint_file: Path | None = None,
    begin: "Begin | None" = None,
) -> RunResult:
    """Train as ``spec`` says and return the outcome; ``on_epoch`` is told of each epoch's end.

    ``begin`` makes the run before its first epoch, where it is to be watched; else Training.begin.

    Goes on from ``checkpoint_file`` where an interrupted run of the same spec, network, recipe,
    code and torch has left one, to the outcome that it would have had; with a warning from the
    beginning where it cannot. The file stays, until the caller has stored the outcome.
    A loss that is no longer finite ends the run as ``diverged``. What the network itself raises
    is passed on. The global random numbers are left as they were found.
    Raises ValueError before anything trains for names that are unknown, and for a norm, a network
    and images that do not fit each other, as check_network and check_images do.
    """
    classes = len(find_dataset(spec.dataset).classes)
    with random_numbers_kept():
        check_network(spec.network, spec.norm, spec.dropout, shape_of(data), classes)
        check_regularizer(spec.regularizer, spec.network, shape_of(data), classes)
        check_recipe(spec.recipe, spec.network, shape_of(data), classes)
    begin = begin or Training.begin
    digest, code = fingerprint(spec), code_digest(spec)
    started = datetime.now(UTC)
    devices = [device] if device.type == "cuda" else []
    with on_device(device), random_numbers_kept(devices):
        training = begin(spec, data, device)
        checkpoint = None
        if checkpoint_file is not None:
            identity = (
                f"{spec.key} {digest} {code} {torch.__version__} {device.type} {data.content}"
            )
            checkpoint = Checkpoint(checkpoint_file, identity)
            if not checkpoint.restore(training.restore):
                training = begin(spec, data, device)
        evaluation = training.run(on_epoch, checkpoint)
    network = training.network
    epochs = training.epochs
    diverged = len(epochs) < spec.epochs
    return RunResult(
        spec=spec,
        recipe=find_recipe(spec.recipe).to_dict(),
        status="diverged" if diverged else "ok",
        message=f"the loss was no longer finite in epoch {len(epochs) + 1}" if diverged else "",
        parameters=count_parameters(network),
        epochs=tuple(epochs),
        confusion=() if diverged else evaluation.confusion(),
        mistakes=() if diverged else evaluation.mistakes(),
        wrong=() if diverged else tuple(evaluation.misclassified().tolist()),
        activations=by_layer(training.activations),
        weights=() if diverged else weight_histogram(network),
        cpu_seconds=training.cpu_seconds,
        device=str(device),
        threads=torch.get_num_threads(),
        started=started.isoformat(timespec="seconds"),
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
        torch=torch.__version__,
        fingerprint=digest,
        code=code,
        data=data.content,
    )


class Training:
    """A run as far as it has come: its network, what updates it, and the epochs that are over.

    Raises ValueError as check_images does.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: RunSpec,
        recipe: Recipe,
        data: ImageData,
        device: torch.device,
    ) -> None:
        check_images(spec, data)
        self.network, self.spec, self.recipe = network, spec, recipe
        self.image_size = seen_shape(spec.network, shape_of(data))[1]
        self.generator = torch.Generator(device).manual_seed(spec.seed)
        if spec.train_images:
            data = data.training_part(spec.train_images, self.generator)
        self.data = data
        if recipe.whitening:
            seen = center_crop(spread(data.train_images), self.image_size).float()
            images = normalize_(seen, data.mean, data.std)
            whiten(first_convolution(network, images.shape[1], self.image_size), images)
        # SGD adds L2 itself
        fused = {"l2"} if recipe.optimizer == "sgd" else set()
        others = {name: value for name, value in spec.strengths.items() if name not in fused}
        regularizers = find_regularizers(others)
        # what a regularizer has added is of the network's type, as of float64 in a check
        kind = next(network.parameters()).dtype
        for regularizer in regularizers:
            regularizer.change_network(network)
        flat = FlatParameters(network.to(device, kind if regularizers else None))
        peak = recipe.peak_learning_rate(spec.batch_size)
        # a captured step reads its learning rate where the schedule writes it
        rate = torch.tensor(peak, device=device) if device.type == "cuda" else peak
        weight_decay = spec.strengths.get("l2", 0.0) if fused else 0.0
        self.optimizer = build_optimizer(recipe, flat, rate, weight_decay)
        count = len(data.train_labels)
        steps = recipe.steps(count, spec.batch_size, spec.epochs)
        self.schedule = build_schedule(self.optimizer, recipe, peak, steps)
        plain = TrainingStep(
            network,
            flat,
            self.optimizer,
            regularizers,
            recipe.label_smoothing,
            recipe.gradient_clipping,
        )
        self.step: Step = CapturedStep(plain) if device.type == "cuda" else plain
        self.test_images = prepare_images(data.test_images, data, self.image_size)
        # of each training image, when it was last trained on; before that, greater than any
        self.losses = torch.full((count,), math.inf, dtype=torch.float64, device=device)
        self.epochs: list[Epoch] = []
        self.activations: list[dict[str, Statistics]] = []
        self._cpu_start = time.process_time()

    @classmethod
    def begin(cls, spec: RunSpec, data: ImageData, device: torch.device) -> Self:
        """Return the run before its first epoch; seeds the global random numbers."""
        seed_everything(spec.seed)
        classes = len(find_dataset(spec.dataset).classes)
        network = build_network(spec.network, spec.norm, spec.dropout, shape_of(data), classes)
        return cls(network.to(device), spec, find_recipe(spec.recipe), data, device)

    @property
    def cpu_seconds(self) -> float:
        """The processor seconds spent so far, also before an interruption."""
        return time.process_time() - self._cpu_start

    def run(
        self, on_epoch: Callable[[Epoch], None], checkpoint: Checkpoint | None = None
    ) -> Evaluation:
        """Train what is left, as long as losses are finite; return the last evaluation."""
        while True:
            epoch, evaluation = self._epoch()
            if not (math.isfinite(epoch.train_loss) and math.isfinite(epoch.test_loss)):
                return evaluation
            images = self.test_images[:EVALUATION_BATCH]
            self.activations.append(activation_statistics(self.network, images))
            self.epochs.append(epoch)
            on_epoch(epoch)
            if len(self.epochs) == self.spec.epochs:
                return evaluation
            if checkpoint is not None:
                checkpoint.save(self.state)

    def _epoch(self) -> tuple[Epoch, Evaluation]:
        start = time.perf_counter()
        order = self.order()
        batches = training_batches(
            self.data, self.spec, self.recipe, self.image_size, self.generator, order
        )
        trained = train_epoch(self.network, batches, self.step, self.schedule)
        self.losses[order] = losses_of(trained)
        train_loss, train_accuracy = trained.loss, trained.accuracy
        middle = time.perf_counter()
        tested = evaluate(
            self.network, self.test_images, self.data.test_labels, self.recipe.test_time_flip
        )
        test_loss, test_accuracy = tested.loss, tested.accuracy
        epoch = Epoch(
            epoch=len(self.epochs) + 1,
            learning_rate=float(self.schedule.get_last_lr()[0]),
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            train_seconds=middle - start,
            test_seconds=time.perf_counter() - middle,
        )
        return epoch, tested

    def order(self) -> Tensor:
        """Return the images of the next epoch, in their order."""
        count = self.recipe.selection.images(len(self.losses), len(self.epochs))
        images = greatest(self.losses, count)
        return drawn_order(images, self.spec.batch_size, self.generator)

    def state(self) -> dict[str, Any]:
        """Return what restore needs, in tensors and builtin types."""
        on_gpu = self.generator.device.type == "cuda"
        return {
            "network": network_state(self.network),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "random": torch.get_rng_state(),
            "other_random": other_random_numbers(),
            "cuda_random": torch.cuda.get_rng_state(self.generator.device) if on_gpu else None,
            "losses": self.losses,
            "epochs": [dataclasses.asdict(epoch) for epoch in self.epochs],
            "activations": self.activations,
            "cpu_seconds": self.cpu_seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where state was taken, in a training of the same spec."""
        restore_network(self.network, state["network"])
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            # a captured step reads it where it was, on the run's device
            if isinstance(rate, Tensor):
                group["lr"] = rate.fill_(float(group["lr"]))
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["random"])
        set_other_random_numbers(state["other_random"])
        if state["cuda_random"] is not None:
            torch.cuda.set_rng_state(state["cuda_random"], self.generator.device)
        self.losses.copy_(state["losses"])
        self.epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        self.activations = state["activations"]
        self._cpu_start = time.process_time() - state["cpu_seconds"]


# Makes a run of a spec on the images, on a device, before its first epoch.
Begin = Callable[[RunSpec, ImageData, torch.device], Training]
