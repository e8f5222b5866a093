"""A stage of gpu.py: what a step of training takes, plain and captured, operator by operator."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
from gpu_training import Setup, Tell, as_in_a_run, batches_of, mnist_spec

from normbench.training.data import load_dataset
from normbench.training.steps import CapturedStep
from normbench.training.trainer import Training, evaluate, training_batches


def wait(setup: Setup) -> None:
    if setup.on_gpu:
        torch.cuda.synchronize(setup.device)


def seconds_of(setup: Setup, action: Callable[[], object]) -> float:
    wait(setup)
    start = time.perf_counter()
    action()
    wait(setup)
    return time.perf_counter() - start


def profile(setup: Setup, tell: Tell) -> None:
    """Time a step, plain and captured, for two norms; then profile each of these."""
    kinds = [(norm, plain) for norm in ("batch", "group:4") for plain in (True, False)]
    named = {f"{norm}, {'plain' if plain else 'replayed'}": (norm, plain) for norm, plain in kinds}
    found: dict[str, dict[str, Any]] = {name: {} for name in named}
    prepared: dict[str, Prepared] = {}

    def attempt(name: str, measure: Callable[[], dict[str, Any]]) -> None:
        try:
            found[name] |= measure()
        except Exception as error:
            found[name]["error"] = f"{type(error).__name__}: {error}"
        told = "; ".join(told_of(name, each) for name, each in found.items() if each)
        tell({"told": told, "steps": found})

    with as_in_a_run(torch.device(setup.device)):
        for name, (norm, plain) in named.items():
            attempt(name, lambda n=name, k=norm, p=plain: timed(setup, prepared, n, k, p))
        # last, as a profiler and a graph do not always bear each other
        for name, ready in prepared.items():
            attempt(name, lambda each=ready: operators(setup, each))
    if not prepared:
        raise SystemExit("no step could be timed")


def told_of(name: str, found: dict[str, Any]) -> str:
    told = [found["error"]] if "error" in found else []
    if "milliseconds a step" in found:
        told.insert(0, f"{found['milliseconds a step']:.3f} ms a step")
    return f"{name}: {', '.join(told)}"


class Prepared:
    """A run that is about to train, with some batches on its device."""

    def __init__(self, setup: Setup, norm: str, plain: bool) -> None:
        device = torch.device(setup.device)
        spec = mnist_spec(setup, norm)
        self.training = Training.begin(spec, load_dataset("mnist", setup.data, device), device)
        self.training.network.train()
        step = self.training.step
        self.step = step.step if isinstance(step, CapturedStep) and plain else step
        self.batches = list(itertools.islice(batches_of(self.training), 8))

    def steps(self, count: int) -> None:
        for images, labels in itertools.islice(itertools.cycle(self.batches), count):
            self.step(images, labels)

    @property
    def captured(self) -> bool:
        return isinstance(self.step, CapturedStep) and self.step.replay is not self.step.step


def timed(
    setup: Setup, prepared: dict[str, Prepared], name: str, norm: str, plain: bool
) -> dict[str, Any]:
    """Return milliseconds of a step and of what is around it; keep what can be profiled."""
    ready = prepared[name] = Prepared(setup, norm, plain)
    training = ready.training
    count, scheduled = (5, 2) if setup.quick else (300, 100)
    ready.steps(5)
    schedule = training.schedule
    return {
        "milliseconds a step": 1e3 * seconds_of(setup, lambda: ready.steps(count)) / count,
        "milliseconds of a step of the schedule": 1e3
        * seconds_of(setup, lambda: [schedule.step() for _ in range(scheduled)])
        / scheduled,
        "milliseconds of an epoch's batches": 1e3 * epoch_of_batches(setup, training),
        "milliseconds of an evaluation": 1e3 * evaluation(setup, training),
        "captured": ready.captured,
    }


def epoch_of_batches(setup: Setup, training: Training) -> float:
    size = training.image_size
    part = (training.data, training.spec, training.recipe, size, training.generator)
    return min(
        seconds_of(setup, lambda: list(training_batches(*part, training.order()))) for _ in range(2)
    )


def evaluation(setup: Setup, training: Training) -> float:
    network, images, labels = training.network, training.test_images, training.data.test_labels
    if setup.quick:
        images, labels = images[:640], labels[:640]
    found = min(seconds_of(setup, lambda: evaluate(network, images, labels)) for _ in range(2))
    network.train()
    return found


def operators(setup: Setup, ready: Prepared) -> dict[str, Any]:
    """Return the operators that take most, kernels a step, and how busy the GPU was."""
    steps = 2 if setup.quick else 20
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if setup.on_gpu:
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    wait(setup)
    with torch.profiler.profile(activities=kinds, acc_events=True) as profiler:
        ready.steps(steps)
        wait(setup)
    averages = profiler.key_averages()
    kernels = [
        event
        for event in profiler.events()
        # the optimizer's note of its step spans its kernels
        if event.device_type == torch.autograd.DeviceType.CUDA and "Optimizer." not in event.name
    ]
    busy = sum(e.time_range.end - e.time_range.start for e in kernels)
    span = 0.0
    if kernels:
        first = min(e.time_range.start for e in kernels)
        span = max(e.time_range.end for e in kernels) - first
    return {
        "kernels a step": len(kernels) / steps,
        "kernel microseconds a step": busy / steps,
        "the GPU is busy (%)": 100 * busy / span if span else None,
        "by time on the GPU": most(averages, "self_device_time_total", steps),
        "by time on the CPU": most(averages, "self_cpu_time_total", steps),
    }


def most(averages: Any, figure: str, steps: int, count: int = 15) -> list[dict[str, Any]]:
    """Return the operators of the largest figures, which are microseconds."""
    largest = sorted(averages, key=lambda each: getattr(each, figure, 0.0), reverse=True)
    return [
        {
            "operator": each.key[:120],
            "microseconds a step": getattr(each, figure) / steps,
            "calls a step": each.count / steps,
        }
        for each in largest[:count]
        if getattr(each, figure, 0.0) > 0
    ]
