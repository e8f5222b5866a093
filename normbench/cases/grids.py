"""Cases of grids, read from TOML and checked before anything runs."""

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from normbench.cases.case import TIERS, Case, GridOptions, configuration_key
from normbench.cases.cases_file import CasesContext, CasesFile, Grid, Target
from normbench.cases.errors import CasesError, one_line, read_toml, validated
from normbench.cases.values import SCHEMA, Number, one_of
from normbench.models.networks import NETWORKS, check_network
from normbench.spec import RunSpec
from normbench.training.datasets import dataset_on_disk, find_dataset

# The check builds a network and tries its norms: once is enough for all files of a process, in
# which a module of the user's is imported once as well.
check_network_once = functools.cache(check_network)


def load_cases(file: Path, options: GridOptions, *, fitting: bool = True) -> list[Case]:
    """Return the cases of a file whose grids belong to the chosen tier or a smaller one.

    A configuration that stands in several grids is a case of the first of them.
    Raises CasesError, naming the file and the place, for everything that is not as
    cases_file.CasesFile has it, for what cannot be trained together, and for a configuration
    without a target. A norm need fit the network only where its grid's tier is chosen, and where
    it is asked to be ``fitting``: who reads cases without running them does not ask.
    """
    context = CasesContext(file.parent, options.data, options.norms)
    content = validated(CasesFile, file, read_toml(file), context)
    if misfits := dict.fromkeys(_misfits(content, options, fitting)):
        raise CasesError("\n".join(one_line(f"{file}: {misfit}") for misfit in misfits))
    seeds = max(options.seeds, content.seeds)
    published = content.published or {}
    cases: dict[str, Case] = {}
    without_target: list[str] = []
    for grid in content.grid:
        tier = grid.tier or content.tier
        for spec in _specs(grid, content, options):
            target = _target(content.target, spec)
            if target is None:
                without_target.append(spec.label)
            elif options.includes(tier):
                row = published.get(configuration_key(spec))
                case = Case(file.stem, tier, spec, target, row, seeds, content.seeds)
                cases.setdefault(case.id, case)
    if without_target:
        first, *others = dict.fromkeys(without_target)
        and_others = f" and {len(others)} other configurations" if others else ""
        raise CasesError(f"{file}: no [[target]] fits {first}{and_others}; add one without keys")
    return list(cases.values())


def cases_file_of(spec: RunSpec) -> str:
    """Return a cases file whose only case is of these runs, whatever their seed.

    Its target is one that any run exceeds that learns anything.
    """
    part = "" if spec.train_images is None else f"train_images = {spec.train_images}\n"
    return f"""\
schema = {SCHEMA}
tier = "{TIERS[0]}"
dataset = {json.dumps(spec.dataset, ensure_ascii=False)}
network = "{spec.network}"
recipe = "{spec.recipe}"
epochs = {spec.epochs}
dropout = {spec.dropout!r}
{part}
[[grid]]
norm = ["{spec.norm}"]
regularizer = [{{ l1 = {spec.l1!r}, l2 = {spec.l2!r} }}]
batch_size = [{spec.batch_size}]

[[target]]
test_accuracy = 0
"""


def _misfits(content: CasesFile, options: GridOptions, fitting: bool) -> Iterator[str]:
    """Tell what cannot be trained together, each with its place in the file."""
    yield from _misfit_of_network(content)
    images = content.train_images or find_dataset(content.dataset).training_images
    at_most = Number(1, images).words(whole=True)
    for number, grid in enumerate(content.grid, start=1):
        place = f"[[grid]] {number}"
        for size in grid.batch_size:
            if size > images:
                yield (
                    f"{place}: batch_size = {size}; expected {at_most}, "
                    "the images that a run trains on"
                )
        if fitting and options.includes(grid.tier or content.tier):
            for norm in options.grid_norms(grid.norm):
                added = norm in options.norms
                try:
                    check_network_once(content.network, norm)
                except ValueError as error:
                    yield f"{'--bench-norm' if added else f'{place}: norm'}: {error}"


def _misfit_of_network(content: CasesFile) -> Iterator[str]:
    data = find_dataset(content.dataset)
    channels, size = data.image_channels, data.image_size
    fitting = tuple(name for name, network in NETWORKS.items() if network.takes(channels, size))
    if content.network not in fitting:
        yield (
            f"network = {content.network!r}; expected {one_of(fitting)}, which can take the "
            f"images of {content.dataset!r}, {channels} x {size} x {size}"
        )


def _specs(grid: Grid, content: CasesFile, options: GridOptions) -> Iterator[RunSpec]:
    dataset = dataset_on_disk(content.dataset, options.data)
    norms = options.grid_norms(grid.norm)
    for norm, l1, l2, size in grid.configurations(norms):
        yield RunSpec(
            dataset=dataset,
            network=content.network,
            norm=norm,
            l1=l1,
            l2=l2,
            batch_size=size,
            epochs=content.epochs,
            dropout=content.dropout,
            recipe=grid.recipe or content.recipe,
            seed=options.first_seed,
            train_images=content.train_images,
        )


def _target(targets: Sequence[Target], spec: RunSpec) -> float | None:
    """Return the accuracy, a fraction, of the first target that fits."""
    fitting = next((target for target in targets if target.fits(configuration_key(spec))), None)
    return None if fitting is None else fitting.test_accuracy / 100
