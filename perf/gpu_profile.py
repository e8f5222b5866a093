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
    """Time and profile a step, plain and captured, for two norms."""
    found: dict[str, Any] = {}
    for norm in ("batch", "group:4"):
        for plain in (True, False):
            name = f"{norm}, {'plain' if plain else 'replayed'}"
            try:
                found[name] = profiled(setup, norm, plain)
            except Exception as error:
                found[name] = {"error": f"{type(error).__name__}: {error}"}
            tell({"told": "; ".join(map(told_of, found, found.values())), "steps": found})
    if all("error" in each for each in found.values()):
        raise SystemExit("no step could be profiled")


def told_of(name: str, found: dict[str, Any]) -> str:
    if "error" in found:
        return f"{name}: {found['error']}"
    return f"{name}: {found['milliseconds a step']:.3f} ms a step"


def profiled(setup: Setup, norm: str, plain: bool) -> dict[str, Any]:
    """Return milliseconds of a step and of what is around it, and the operators that take them."""
    device = torch.device(setup.device)
    spec = mnist_spec(setup, norm)
    data = load_dataset(spec.dataset, setup.data, device)
    count, shown = (5, 2) if setup.quick else (300, 20)
    with as_in_a_run(device):
        training = Training.begin(spec, data, device)
        step = training.step
        if isinstance(step, CapturedStep) and plain:
            step = step.step
        training.network.train()
        batches = list(itertools.islice(batches_of(training), 8))

        def steps(number: int) -> None:
            for images, labels in itertools.islice(itertools.cycle(batches), number):
                step(images, labels)

        steps(5)
        result = {
            "milliseconds a step": 1e3 * seconds_of(setup, lambda: steps(count)) / count,
            "milliseconds of an epoch's batches": 1e3 * epoch_of_batches(setup, training),
            "milliseconds of an evaluation": 1e3 * evaluation(setup, training),
            "captured": isinstance(step, CapturedStep) and step.replay is not step.step,
        }
        return result | operators(setup, lambda: steps(shown), shown)


def epoch_of_batches(setup: Setup, training: Training) -> float:
    size = training.network.image_size
    part = (training.data, training.spec, training.recipe, size, training.generator)
    return min(seconds_of(setup, lambda: list(training_batches(*part))) for _ in range(2))


def evaluation(setup: Setup, training: Training) -> float:
    network, images, labels = training.network, training.test_images, training.data.test_labels
    if setup.quick:
        images, labels = images[:640], labels[:640]
    found = min(seconds_of(setup, lambda: evaluate(network, images, labels)) for _ in range(2))
    network.train()
    return found


def operators(setup: Setup, action: Callable[[], None], steps: int) -> dict[str, Any]:
    """Return the operators that take most, kernels a step, and how busy the GPU was."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if setup.on_gpu:
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    wait(setup)
    with torch.profiler.profile(activities=kinds, acc_events=True) as profiler:
        action()
        wait(setup)
    averages = profiler.key_averages()
    kernels = [e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA]
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
