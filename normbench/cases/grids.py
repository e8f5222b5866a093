"""Cases of grids, read from TOML and checked before anything runs."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from normbench.cases.case import TIERS, Case, Configuration, GridOptions
from normbench.cases.cases_file import CasesContext, CasesFile, Grid
from normbench.cases.errors import CasesError, one_line, read_toml, toml_value, validated
from normbench.cases.values import SCHEMA, Number, one_of
from normbench.models.networks import NETWORKS, check_network, takes
from normbench.models.sites import NetworkDoesNotFit
from normbench.spec import RunSpec, configuration_label
from normbench.training.checks import check_recipe, check_regularizer
from normbench.training.datasets import dataset_on_disk, find_dataset
from normbench.training.recipes import find_recipe, recipe_table

# These build a network: once is enough for all files of a process, in which a module of the user's
# is imported once as well.
_check_network_once = functools.cache(check_network)
_check_regularizer_once = functools.cache(check_regularizer)
_check_recipe_once = functools.cache(check_recipe)


def check_fitting(network: str, norm: str, dropout: float, dataset: str) -> None:
    """Raise what is wrong with a network and a norm on a data set's images, as check_network does.

    It is found out once in a process.
    """
    facts = find_dataset(dataset)
    _check_network_once(network, norm, dropout, facts.shape, len(facts.classes))


def load_cases(file: Path, options: GridOptions, *, fitting: bool = True) -> list[Case]:
    """Return the cases of a file whose grids belong to the chosen tier or a smaller one.

    A configuration that stands in several grids is a case of the first of them. One that the
    command line adds has a target only if a [[target]] names its norm or regularizer.
    Raises CasesError, naming the file and the place, for everything that is not as
    cases_file.CasesFile has it, and for what cannot be trained together. A norm need fit the
    network only where its grid's tier is chosen, and where it is asked to be ``fitting``: who
    reads cases without running them does not ask. What the command line adds and does not fit is
    a case with a misfit.
    """
    context = CasesContext(file.parent, options.data, options.norms, options.regularizers)
    content = validated(CasesFile, file, read_toml(file), context)
    if misfits := dict.fromkeys(_misfits(content, options, fitting)):
        raise CasesError("\n".join(one_line(f"{file}: {misfit}") for misfit in misfits))
    seeds = max(options.seeds, content.seeds)
    published = content.published or {}
    misfit = functools.partial(_misfit_of_added, file, content, options) if fitting else None
    cases: dict[str, Case] = {}
    for grid in content.grid:
        tier = grid.tier or content.tier
        for spec in _specs(grid, content, options):
            if options.includes(tier):
                target = _target(content, spec)
                row = published.get(Configuration.of(spec))
                case = Case(
                    grid=file.stem,
                    tier=tier,
                    spec=spec,
                    target=options.target if target is None else target,
                    published=row,
                    seeds=seeds,
                    least=content.seeds,
                    misfit=misfit(grid, spec) if misfit else "",
                )
                cases.setdefault(case.id, case)
    return list(cases.values())


def cases_file_of(spec: RunSpec) -> str:
    """Return a cases file whose only case is of these runs, whatever their seed.

    Its target is one that any run exceeds that learns anything.
    """
    recipe = toml_value(recipe_table(spec.recipe))
    strengths = ", ".join(f'"{name}" = {value!r}' for name, value in spec.strengths.items())
    part = "" if spec.train_images is None else f"train_images = {spec.train_images}\n"
    return f"""\
schema = {SCHEMA}
tier = "{TIERS[0]}"
dataset = {toml_value(spec.dataset)}
network = "{spec.network}"
recipe = {recipe}
epochs = {spec.epochs}
dropout = {spec.dropout!r}
{part}
[[grid]]
norm = ["{spec.norm}"]
regularizer = [{{ {strengths} }}]
batch_size = [{spec.batch_size}]

[[target]]
test_accuracy = 0
"""


def _misfits(content: CasesFile, options: GridOptions, fitting: bool) -> Iterator[str]:
    """Tell what cannot be trained together, each with its place in the file."""
    included = [options.includes(grid.tier or content.tier) for grid in content.grid]
    misfit = _misfit_of_network(content, fitting and any(included))
    if misfit:
        yield misfit
    elif fitting:
        yield from _misfits_of_training(content, options)
    yield from _misfits_of_recipes(content)
    count = content.train_images or find_dataset(content.dataset).training_images
    for number, grid in enumerate(content.grid, start=1):
        place = f"[[grid]] {number}"
        selection = find_recipe(str(grid.recipe or content.recipe)).selection
        images = selection.images(count, content.epochs - 1)
        at_most = Number(1, images).words(whole=True)
        for size in grid.batch_size:
            if size > images:
                yield (
                    f"{place}: batch_size = {size}; expected {at_most}, "
                    f"the images that a run trains on{'' if images == count else ' in the end'}"
                )
        # a network of the user's own that cannot be trained would say so with each norm again
        tried = fitting and included[number - 1] and (not misfit or content.network in NETWORKS)
        if tried:
            for norm in () if options.norms_only else grid.norm:
                if told := _told(
                    check_fitting, content.network, norm, content.dropout, content.dataset
                ):
                    yield f"{place}: norm: {told}"


def _misfit_of_added(
    file: Path, content: CasesFile, options: GridOptions, grid: Grid, spec: RunSpec
) -> str:
    """Tell why a norm or a regularizer of the command line does not fit; "" where they do."""
    facts = find_dataset(content.dataset)
    norm = regularizer = ""
    if spec.norm not in grid.norm or options.norms_only:
        norm = _told(check_fitting, spec.network, spec.norm, spec.dropout, content.dataset)
    if spec.regularizer not in grid.regularizers:
        built = spec.network, facts.shape, len(facts.classes)
        regularizer = _told(_check_regularizer_once, spec.regularizer, *built)
    named = {"--bench-norm": norm, "--bench-regularizer": regularizer}
    lines = (one_line(f"{file}: {option}: {told}") for option, told in named.items() if told)
    return "\n".join(lines)


def _told(check: Callable[..., None], *given: Any) -> str:
    """Return what a check raises ValueError with; "" where it raises none."""
    try:
        check(*given)
    except ValueError as error:
        return str(error)
    return ""


def _misfits_of_training(content: CasesFile, options: GridOptions) -> Iterator[str]:
    """Tell of regularizers and recipes that cannot train the file's network."""
    facts = find_dataset(content.dataset)
    built = content.network, facts.shape, len(facts.classes)
    for number, grid in enumerate(content.grid, start=1):
        if not options.includes(grid.tier or content.tier):
            continue
        place = f"[[grid]] {number}: "
        for regularizer in grid.regularizers:
            if told := _told(_check_regularizer_once, regularizer, *built):
                yield f"{place}regularizer: {told}"
        if told := _told(_check_recipe_once, str(grid.recipe or content.recipe), *built):
            yield f"{place if grid.recipe else ''}recipe: {told}"


def _misfits_of_recipes(content: CasesFile) -> Iterator[str]:
    """Tell of configurations that several grids have by different recipes: ids show none."""
    recipes: dict[Configuration, str] = {}
    for number, grid in enumerate(content.grid, start=1):
        recipe = str(grid.recipe or content.recipe)
        for configuration in grid.configurations(grid.norm, grid.regularizers):
            if recipes.setdefault(configuration, recipe) != recipe:
                label = configuration_label(*configuration)
                yield (
                    f"[[grid]] {number}: {label} has another recipe in an earlier [[grid]], and "
                    "ids would not tell them apart; leave it out of one, or use two files"
                )
                return


def _misfit_of_network(content: CasesFile, fitting: bool) -> str:
    """Tell why the network cannot be trained on the images, whatever its norm; "" where it can.

    One of the user's own is built, if it is to be ``fitting``.
    """
    facts, network = find_dataset(content.dataset), content.network
    if not takes(network, facts.shape):
        channels, size = facts.image_channels, facts.image_size
        known = tuple(name for name in NETWORKS if takes(name, facts.shape))
        return (
            f"network = {network!r}; expected {one_of(known)}, which can take the images of "
            f"{content.dataset!r}, {channels} x {size} x {size}"
        )
    if fitting and network not in NETWORKS:
        try:
            check_fitting(network, "none", content.dropout, content.dataset)
        except NetworkDoesNotFit as misfit:
            return f"network: {misfit}"
    return ""


def _specs(grid: Grid, content: CasesFile, options: GridOptions) -> Iterator[RunSpec]:
    dataset = dataset_on_disk(content.dataset, options.data)
    norms = options.grid_norms(grid.norm)
    regularizers = options.grid_regularizers(grid.regularizers)
    for norm, regularizer, size in grid.configurations(norms, regularizers):
        yield RunSpec(
            dataset=dataset,
            network=content.network,
            norm=norm,
            regularizer=regularizer,
            batch_size=size,
            epochs=content.epochs,
            dropout=content.dropout,
            recipe=str(grid.recipe or content.recipe),
            seed=options.first_seed,
            train_images=content.train_images,
        )


def _target(content: CasesFile, spec: RunSpec) -> float | None:
    """Return the accuracy, a fraction, of the first target that fits; None if none does.

    One for any norm was set for those that the file has.
    """
    configuration = Configuration.of(spec)
    written = any(grid.has(configuration) for grid in content.grid)
    fitting = (
        target.test_accuracy / 100
        for target in content.target
        if target.fits(configuration) and (written or target.names(configuration))
    )
    return next(fitting, None)
