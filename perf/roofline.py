"""Hold the training against the rate of this machine's best matrix product.

    python perf/roofline.py --bench-data DIR

The operations that a step must do are those of its convolutions and its linear layer, forward
and backward. The rate is that of the best of several float32 matrix products on one thread,
measured anew before each network. Nothing else should run on the machine meanwhile.
"""

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rows import write_rows
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from normbench.engine.devices import tune_malloc
from normbench.models.networks import NETWORKS, build_network
from normbench.spec import RunSpec
from normbench.training.data import load_dataset
from normbench.training.datasets import dataset_on_disk, default_root
from normbench.training.trainer import train

CPU = torch.device("cpu")
EPOCHS = 6
STEPS = 100
PRODUCT_SIZES = (256, 512, 1024)
NORMS = ("none", "batch", "layer", "group:4", "instance")
WORKLOADS = (("mnist", 64), ("cifar10", 128))

# Where a step's time goes, by the beginning of the operator's name; the rest is "other".
KINDS = {
    "convolution": ("aten::convolution_backward", "aten::mkldnn_convolution"),
    "norm": (
        "aten::native_batch_norm",
        "aten::native_group_norm",
        "aten::native_layer_norm",
        "NativeGroupNorm",
        "NativeBatchNorm",
    ),
    "pooling": ("aten::max_pool2d", "aten::adaptive_max_pool2d"),
    "activation": ("aten::silu", "aten::clamp_min", "aten::threshold_backward"),
    "augmentation": ("aten::grid_sampler", "aten::index", "aten::flip", "aten::where"),
    "copies": ("aten::copy_", "aten::fill_", "aten::zero_"),
    "optimizer": ("Optimizer.step", "aten::_fused_sgd_"),
}


def best_product_rate() -> float:
    """Return the operations a second of the fastest square float32 product, of a few sizes."""

    def rate(size: int) -> float:
        a, b = torch.randn(2, size, size)
        times = []
        for _ in range(12):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
        return 2 * size**3 / min(times)

    return max(rate(size) for size in PRODUCT_SIZES)


def operations_of_a_step(network: str, norm: str, batch_size: int) -> int:
    """Count the floating-point operations of convolutions and products, forward and backward."""
    model = build_network(network, norm)
    images = torch.randn(batch_size, *NETWORKS[network].made_for())
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(images), torch.zeros(batch_size, dtype=torch.long)).backward()
    return int(counter.get_total_flops())


def workload(network: str, norm: str, batch_size: int, data: Path) -> RunSpec:
    dataset = dataset_on_disk(network, data)
    return RunSpec(
        dataset,
        network,
        norm,
        batch_size=batch_size,
        epochs=EPOCHS,
        recipe=network,
        train_images=STEPS * batch_size,
    )


def measure(spec: RunSpec, root: Path) -> dict[str, Any]:
    """Return a row: a step's time, its operations, and the share of the best rate.

    A step's time is that of the fastest epoch but the first, augmentation included, as the
    product's rate is its best: what else the machine does slows either.
    """
    data = load_dataset(spec.dataset, root, CPU)
    rate = best_product_rate()
    epochs = train(spec, data, CPU).epochs[1:]
    seconds = min(epoch.train_seconds for epoch in epochs) / STEPS
    operations = operations_of_a_step(spec.network, spec.norm, spec.batch_size)
    return {
        "network": spec.network,
        "norm": spec.norm,
        "batch size": spec.batch_size,
        "ms a step": 1e3 * seconds,
        "MFLOP a step": operations / 1e6,
        "GFLOP/s": operations / seconds / 1e9,
        "best product, GFLOP/s": rate / 1e9,
        "share of it (%)": 100 * operations / seconds / rate,
    }


def time_by_kind(spec: RunSpec, root: Path) -> dict[str, Any]:
    """Return a row: the share of a run's processor time that each kind of operator takes.

    Of one epoch, after one to warm up: the profiler keeps every call, and takes its time over them.
    """
    data = load_dataset(spec.dataset, root, CPU)
    spec = dataclasses.replace(spec, epochs=1)
    train(spec, data, CPU)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        train(spec, data, CPU)
    spent = dict.fromkeys((*KINDS, "other"), 0.0)
    for event in profiled.key_averages():
        kind = next((k for k, names in KINDS.items() if event.key.startswith(names)), "other")
        spent[kind] += event.self_cpu_time_total
    total = sum(spent.values())
    shares = {f"{kind} (%)": 100 * seconds / total for kind, seconds in spent.items()}
    return {"network": spec.network, "norm": spec.norm, **shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bench-data", type=Path, default=default_root(), help="the data root")
    parser.add_argument("--output", type=Path, default=Path("results/perf"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    tune_malloc()
    specs = [
        workload(network, norm, batch_size, options.bench_data)
        for network, batch_size in WORKLOADS
        for norm in NORMS
    ]
    for name, row in (("roofline", measure), ("operators", time_by_kind)):
        write_rows([row(spec, options.bench_data) for spec in specs], name, options.output)


if __name__ == "__main__":
    main()
