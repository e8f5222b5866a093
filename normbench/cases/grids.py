"""Cases of grids, read from TOML and checked before anything runs."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from normbench.cases.case import Case, GridOptions, configuration_key
from normbench.cases.cases_file import CasesContext, CasesFile, Grid, Target, check_network_once
from normbench.cases.errors import CasesError, one_line, read_toml, validated
from normbench.spec import RunSpec
from normbench.training.datasets import dataset_on_disk


def load_cases(file: Path, options: GridOptions) -> list[Case]:
    """Return the cases of a file whose grids belong to the chosen tier or a smaller one.

    A configuration that stands in several grids is a case of the first of them.
    Raises CasesError, naming the file and the place, for everything that is not as
    cases_file.CasesFile has it, for norms that do not fit the network, and for a configuration
    without a target.
    """
    raw = read_toml(file)
    context = CasesContext(file.parent, raw.get("network"), options.norms, options.norms_only)
    content = validated(CasesFile, file, raw, context)
    _check_added_norms(file, content, options)
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


def _check_added_norms(file: Path, content: CasesFile, options: GridOptions) -> None:
    """Check what the command line adds; the file's own norms are checked where they stand."""
    wrong = []
    for norm in options.norms:
        try:
            check_network_once(content.network, norm)
        except ValueError as error:
            wrong.append(one_line(f"{file}: --bench-norm: {error}"))
    if wrong:
        raise CasesError("\n".join(wrong))


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
