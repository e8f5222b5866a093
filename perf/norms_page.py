"""Write docs/norms.md: the norms by properties, cost and results, side by side.

``python perf/norms_page.py SESSION...`` measures the costs and takes the results out of the stored
sessions' folders; ``make norms-page SESSIONS="..."`` is the same.
"""

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from tabulate import tabulate

from normbench.check.costs import times_of_batch
from normbench.engine.devices import tune_malloc
from normbench.models.families import FAMILIES, INVARIANCES
from normbench.models.norms import NormSite, norm_factory
from normbench.results import RunResult
from normbench.storage.environment import processor
from normbench.storage.session import StoredSession, read_session

PAGE = Path(__file__).resolve().parents[1] / "docs" / "norms.md"

# A name of each family: those that are measured, and trained.
NORMS = {
    spelling: "ghost:16" if spelling == "ghost:S" else family.example
    for spelling, family in FAMILIES.items()
}
# The second block of the network mnist, at a batch size of 64.
SHAPE = (64, 16, 12, 12)

# What each computes of features x, before a weight w and a bias b where it has them.
FORMULAS = {
    "none": "`x`",
    "batch": "`(x - m) / sqrt(v + eps)`; at evaluation, stored `m` and `v`",
    "layer": "`(x - m) / sqrt(v + eps)`",
    "layer_chw": "`(x - m) / sqrt(v + eps)`",
    "group:G": "`(x - m) / sqrt(v + eps)` for each of G groups of channels",
    "instance": "`(x - m) / sqrt(v + eps)`",
    "rms": "`x / sqrt(mean(x^2) + eps)`: `layer` without the centring",
    "frn": "`max(w x / sqrt(mean(x^2) + eps) + b, t)`",
    "grn": "`w x g / mean(g) + b + x`, `g` being the root of a map's sum of squares, and the mean "
    "that over channels; it begins as `x`",
    "batch_renorm": "`(x - m) / s r + d`, which is `(x - M) / S` with the stored `M` and `S` where "
    "`r` and `d` are within their bounds; these widen from batch normalization over 800 steps",
    "ghost:S": "as `batch` for each S images of a batch, in its order; an incomplete last ghost "
    "batch is normalized by the images that it has",
    "ws+group:G": "as `group:G`; the weights of all convolutions are standardized, filter by "
    "filter; `ws+` goes before any of batch, layer, layer_chw, group:G, instance, rms, frn, "
    "batch_renorm and ghost:S, which are invariant to scale",
    "evonorm_s0:G": "`x sigmoid(v x) / sqrt(v + eps)`, the variance of each of G groups",
    "dynamic_tanh": "`tanh(a x)`, `a` trained; it takes no statistics",
}

# The columns of results: data set, by its plain recipe, and batch size, with what runs them.
RESULTS = {
    ("digits", 64): '--bench-seeds 10 -k "test_digits and none-b64"',
    ("mnist", 64): '--bench-tier full --bench-seeds 3 -k "mnist_plain and none-b64"',
    ("cifar10", 128): '--bench-seeds 1 -k "test_cifar10 and none-b128"',
}

INTRODUCTION = """\
# The norms, side by side

What each norm computes and claims, what it costs, and what accuracies it reaches with recipes that
were chosen for the published ones, none of which was tuned for the others. The page is written by

<!-- not run: the sessions below take hours -->
```sh
make norms-page SESSIONS="results/runs/DIGITS results/runs/MNIST results/runs/CIFAR10"
```

`normbench check NORM` holds each to its formula and to all that the table of properties says.
`eps` is 1e-5; filter response and global response have 1e-6, as their papers do."""

ATTRIBUTES = """\
## What a norm may ask of its network

A norm layer, a user's own as well, says by an attribute:

- `brings_activation = True`: the activation is in it. The networks leave their own out.
- `keeps_scale = True`: its output grows with its input, as without a norm. The networks begin with
  weights that keep the scale of what passes through them (He et al., 2015). Without that, `grn`
  diverged on the digits in one of three runs.
- `standardizes_weights = True`: the weights of every `torch.nn.Conv2d` of the network are
  standardized, wherever it stands; a convolution of another class is left as it is. A network
  without any is refused, and so is a filter with a single weight, which would become 0.

`normbench.models.norms` has a function of each name (the last one for a whole network:
`standardize_weights`) for networks of one's own."""


def properties_part() -> str:
    """Return the part of the page that follows from what the norms claim."""
    rows = []
    for spelling, family in FAMILIES.items():
        claims = family.claims
        held = claims.invariances or ()
        rows.append(
            [
                f"`{spelling}`",
                ", ".join(claims.axes or ()) or "nothing",
                claims.affine,
                "yes" if claims.batch_independent else "no",
                *("yes" if each in held else "" for each in INVARIANCES),
                family.activation,
            ]
        )
    headings = ["norm", "statistics over", "affine", "batch independent", *INVARIANCES]
    table = _table([*headings, "brings the activation"], rows)
    formulas = _table(
        ["norm", "computes", "paper"],
        [[f"`{n}`", FORMULAS[n], f.paper if f.paper != n else ""] for n, f in FAMILIES.items()],
    )
    return "\n\n".join(
        [
            "## What they compute",
            formulas,
            "## Properties",
            "`C/G` are the channels of a group, `N/S` the images of a ghost batch. The output is "
            "invariant to what scales or shifts the features, and moves with what permutes them, "
            "in training and with the parameters that a norm begins with. The gradient of "
            "`batch_renorm` leaves its corrections out on purpose.",
            table,
        ]
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    return tabulate(rows, headings, "github", disable_numparse=True, missingval="-")


def sizes(norm: str) -> tuple[str, str]:
    """Return the parameters and the buffers of a norm, by what there is one of each for."""
    _, channels, height, width = SHAPE
    layer = norm_factory(norm)(NormSite("cost", channels, height, width))
    kinds = {channels: "a channel", channels * height * width: "an element", 1: "a layer"}

    def told(tensors: Iterable[torch.Tensor]) -> str:
        counts: dict[str, int] = defaultdict(int)
        for tensor in tensors:
            counts[kinds[tensor.numel()]] += 1
        return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none"

    return told(layer.parameters()), told(layer.buffers())


def costs_part(times: Mapping[str, float]) -> str:
    """Return the part of the page about costs; ``times`` are over batch normalization's."""
    rows = [
        [f"`{NORMS[spelling]}`", f"{times[spelling]:.2f}", *sizes(NORMS[spelling])]
        for spelling in FAMILIES
    ]
    shape = " x ".join(map(str, SHAPE))
    about = (
        f"The time of a forward and a backward pass over that of `torch.nn.BatchNorm2d`, for "
        f"features of {shape} (the second block of the network `mnist`) in channels_last, on one "
        f"core of {processor()['processor']} with torch {torch.__version__}, "
        f"{datetime.now(UTC).date()}. Each is the median of fifteen rounds in which the two take "
        "turns; that of `batch`, which is BatchNorm2d itself, shows how far off they are. `ws+` "
        "counts the weights of one 3 x 3 convolution; what brings its activation saves the "
        "network's own, which is not counted. A buffer a layer is a count of batches."
    )
    headings = ["norm", "forward and backward", "parameters", "buffers"]
    return "\n\n".join(["## Cost", about, _table(headings, rows)])


def measured_times() -> dict[str, float]:
    """Measure each norm on one core, with memory kept as training has it."""
    torch.set_num_threads(1)
    tune_malloc()
    return {spelling: times_of_batch(norm, SHAPE) for spelling, norm in NORMS.items()}


def results_part(sessions: Sequence[StoredSession]) -> str:
    """Return the part of the page about accuracies, from stored sessions; a dash where none is."""
    runs: dict[tuple[str, int, str], list[RunResult]] = defaultdict(list)
    for session in sessions:
        for run in session.planned_runs:
            spec = run.spec
            family = spec.dataset.partition("-")[0]
            if spec.regularizer == "none" and spec.recipe == family:
                runs[family, spec.batch_size, spec.norm].append(run)
    rows = [
        [f"`{norm}`", *(_accuracy(runs[dataset, size, norm]) for dataset, size in RESULTS)]
        for norm in NORMS.values()
    ]
    headings = [f"{dataset}, batch size {size}" for dataset, size in RESULTS]
    commands = "\n".join(f"normbench run {command} $NORMS" for command in RESULTS.values())
    options = " ".join(f"--bench-norm {norm}" for norm in NORMS.values())
    about = (
        "Test accuracy in percent: mean, standard deviation of single runs, and their number, "
        "without a regularizer, by the recipes `digits`, `mnist` and `cifar10`; a dash where there "
        "is no run. CIFAR-10 is its JPEG copy. With L1 "
        "of 0.01, which no statistics make up for, `dynamic_tanh` came to chance on the digits in "
        "three of three runs."
    )
    return "\n\n".join(
        [
            "## Results",
            about,
            _table(["norm", *headings], rows),
            f'<!-- not run: takes hours -->\n```sh\nNORMS="{options} --bench-norm-only"\n'
            f"{commands}\n```",
            *([_provenance(sessions)] if sessions else []),
        ]
    )


def _accuracy(runs: Sequence[RunResult]) -> str:
    """Return mean, deviation and number of the runs that ended well, and how many did not."""
    values = [100 * run.test_accuracy for run in runs if run.status == "ok"]
    failed = f"; {len(runs) - len(values)} of {len(runs)} failed" if len(values) < len(runs) else ""
    if not values:
        return failed.removeprefix("; ") or "-"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread} ({len(values)}){failed}"


def _provenance(sessions: Sequence[StoredSession]) -> str:
    told = []
    for session in sessions:
        environment = session.document.environment
        told.append(
            f"- `{session.name}`: {environment.get('processor')}, torch {environment.get('torch')}"
        )
    return "The sessions:\n\n" + "\n".join(told)


def page(times: Mapping[str, float], sessions: Sequence[StoredSession]) -> str:
    """Return the whole page."""
    results = results_part(sessions)
    return (
        "\n\n".join([INTRODUCTION, properties_part(), costs_part(times), results, ATTRIBUTES])
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sessions", nargs="*", type=Path, help="folders of stored sessions")
    sessions = [read_session(folder) for folder in parser.parse_args().sessions]
    PAGE.write_text(page(measured_times(), sessions), encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
