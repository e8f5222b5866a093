"""The catalogue: which cases and claims there are, in the suite and in files of the user's own."""

import dataclasses
import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from normbench.cases.case import CLAIMS, COMPARISON, NO_TARGET, OWN, Case, Claim, GridOptions
from normbench.cases.claims import is_claims_file, load_claims
from normbench.cases.errors import CasesError, Mistakes
from normbench.cases.grids import load_cases
from normbench.check.trace_record import Traced, trace_spec, traced_as
from normbench.models.families import FAMILIES, norm_family
from normbench.models.networks import NETWORKS, has_reference
from normbench.models.regularizers import REGULARIZERS
from normbench.spec import NO_REGULARIZER, RunSpec, regularizer_strengths

# The suite; in a checkout, a link to bench.
SUITE = Path(__file__).parents[1] / "bench"


def cases_folder(test_file: Path) -> Path:
    """Return where the grids that a test file names are: in ``cases`` beside it, or the suite's."""
    beside = test_file.resolve().parent / "cases"
    return beside if beside.is_dir() else (SUITE / "cases").resolve()


def grid_id(grid: str) -> str:
    """Return the id of a test about a whole grid; the grid's bare name may be any test's."""
    return f"{grid}-grid"


def checked_names(options: GridOptions) -> dict[str, list[str]]:
    """Return what is checked, by kind: all that the suite has, in the standard tier and above."""
    if options.tier == OWN or not options.includes("standard"):
        return {"norm": [], "regularizer": [], "network": []}
    regularizers = [NO_REGULARIZER, *(f"{name}:0.001" for name in REGULARIZERS)]
    known = [family.example for family in FAMILIES.values()]
    return {
        "norm": options.grid_norms(known),
        "regularizer": [*regularizers, "l1:0.001+l2:0.001"],
        "network": list(NETWORKS),
    }


# A norm for each recipe that no grid of the smoke tier trains, together all but batch
# normalization, whose traces are the largest: it is traced on the digits.
TRACED_RECIPES = {
    "mnist-textbook": "layer",
    "mnist-batch-size": "group:2",
    "cifar10-batch-size": "instance",
    "cifar10-best": "layer",
    "mnist": "layer",
    "mnist-l1": "layer_chw",
    "mnist-fast": "instance",
    "mnist-fast-l1": "group:4",
    "fashion-mnist": "none",
    "cifar10": "group:4",
}


def traced_runs(options: GridOptions, cases: Sequence[Case]) -> list[Traced]:
    """Return what is traced: each norm and regularizer of ``cases`` once, and the other recipes.

    Those come first, which take the longest.
    """
    found = {}
    for recipe, norm in reversed(TRACED_RECIPES.items()) if options.tier != OWN else ():
        if norm in options.grid_norms([norm]):
            regularizer = "l1:0.001" if recipe.endswith("-l1") else NO_REGULARIZER
            found[f"{recipe}-{norm}"] = trace_spec(recipe, norm, regularizer)
    for case in cases:
        spec = case.spec
        if not has_reference(spec.network):
            continue
        name = f"{case.grid}-{spec.norm}-{spec.regularizer}"
        found[name] = traced_as(spec)
    return [Traced(name, spec) for name, spec in found.items()]


class Catalogue:
    """The cases and claims of one or more folders of cases files, and of the user's ``own`` files.

    A file that is given twice, or that lies in such a folder as well, is one file of the user's
    own. Raises CasesError, as a folder is added, with whatever is wrong with its files.
    """

    def __init__(self, options: GridOptions, own: Sequence[Path] = ()) -> None:
        self.options = options
        self.own = tuple({_identity(file): file for file in own}.values())
        self.cases: list[Case] = []
        self.claims: list[Claim] = []
        self._files: list[Path] = []
        self._folders: set[Path] = set()

    def add(self, folder: Path) -> None:
        """Read the files of a folder, once; the user's own are read with the first one."""
        if folder in self._folders:
            return
        own = () if self._folders else self.own
        self._folders.add(folder)
        owned = set(map(_identity, self.own))
        suite = [file for file in sorted(folder.glob("*.toml")) if _identity(file) not in owned]
        claims = {file for file in (*suite, *self.own) if _holds_claims(file)}
        # what claims may take their configurations from, whether it is run or not
        grids = {file.stem: file for file in (*suite, *self.own) if file not in claims}
        self._read([*(() if self.options.tier == OWN else suite), *own], claims, grids)

    def _read(self, files: list[Path], claims: set[Path], grids: dict[str, Path]) -> None:
        """Read the grids, then the claims, which take their configurations from the grids."""
        mistakes = Mistakes()
        for file in files:
            with mistakes.collected():
                self._require_a_name_of_its_own(file, file in claims)
            self._files.append(file)
        for file in files:
            with mistakes.collected():
                if file not in claims:
                    self.cases += load_cases(file, self._options(file))
        # a claim compares the norms that it names, which --bench-norm-only leaves out
        judged = [] if self.options.norms_only else [file for file in files if file in claims]
        added: list[Claim] = []
        for file in judged:
            with mistakes.collected():
                added += load_claims(file, grids, self._options(file))
        with mistakes.collected():
            self._require_claims_of_names_of_their_own(added)
        with mistakes.collected():
            self._require_a_case_for_the_target()
        mistakes.raise_any()
        self.claims += added
        self.cases += _claimed(added)

    def _require_a_case_for_the_target(self) -> None:
        target = self.options.target
        if target > NO_TARGET and all(case.target != target for case in self.cases):
            raise CasesError(
                f"--bench-target {100 * target:g}: each case has a target of its own; expected a "
                "case of which no [[target]] says one: add one with --bench-norm or "
                "--bench-regularizer, or change the [[target]] in the cases file"
            )

    def _require_a_name_of_its_own(self, file: Path, holds_claims: bool) -> None:
        known = next((f for f in self._files if f.stem == file.stem), None)
        if known is not None:
            raise CasesError(
                f"{file}: {known} is called {file.stem!r} already, and tables are known by that "
                "name; rename one of the two"
            )
        taken = file.stem == COMPARISON or file.stem.startswith(CLAIMS)
        if taken and not holds_claims:
            raise CasesError(
                f"{file}: a grid cannot be called {file.stem!r}, as tables of another kind are; "
                "rename the cases file"
            )

    def _options(self, file: Path) -> GridOptions:
        """Return the options of a file: one of the user's own is run whatever tier it says."""
        own = file in self.own
        return dataclasses.replace(self.options, tier=OWN) if own else self.options

    def _require_claims_of_names_of_their_own(self, claims: Sequence[Claim]) -> None:
        names = [claim.name for claim in (*self.claims, *claims)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise CasesError(f"two claims of different files are called {twice!r}; rename one")

    def require(self, *grids: str) -> None:
        """Raise CasesError where a test names a grid that there is no file of, in any tier."""
        known = {file.stem for folder in self._folders for file in folder.glob("*.toml")}
        if unknown := [grid for grid in grids if grid not in known]:
            raise CasesError(
                f"@pytest.mark.cases: there is no grid {unknown[0]!r}; expected one of "
                f"{', '.join(sorted(known))}, or none for those of --bench-cases"
            )

    def grids(self, *names: str) -> list[Case]:
        """Return the cases of the named grids; without a name, those of the user's own files."""
        chosen = names or {file.stem for file in self.own}
        return [case for case in self.cases if case.grid in chosen]

    @property
    def claimed_cases(self) -> list[Case]:
        """The configurations that the claims need runs of, each once."""
        return _claimed(self.claims)


def find_case(case_id: str, files: Sequence[Path], data: Path) -> Case:
    """Return the case of that id, of the suite or of the user's own ``files``, in any tier.

    Norm and regularizer of the id need be none of the grid's, as those of --bench-norm and
    --bench-regularizer are not; one of the user's own is not imported. ``data`` is the data root.
    Raises CasesError where no grid has the rest.
    """
    known: list[Case] = []
    for file in files:
        if case_id.startswith(f"{file.stem}-") and not _holds_claims(file):
            known += load_cases(file, GridOptions(data=data), fitting=False)
    # a grid may train each regularizer in a way of its own
    for alike in (_same_regularizer, _same_size):
        for case in known:
            if (spec := alike(case_id, case)) is not None:
                return dataclasses.replace(case, spec=spec)
    if not known:
        grids = ", ".join(file.stem for file in files if not _holds_claims(file))
        raise CasesError(f"{case_id!r} is no case: expected an id that begins with one of {grids}")
    close = difflib.get_close_matches(case_id, [case.id for case in known], n=3, cutoff=0.0)
    raise CasesError(f"{case_id!r} is no case: expected an id such as {', '.join(close)}")


def _same_regularizer(case_id: str, case: Case) -> RunSpec | None:
    """Return the case's spec with the norm that the id has; None if the rest is another's."""
    spec = _same_size(case_id, case)
    return spec if spec is not None and spec.regularizer == case.spec.regularizer else None


def _same_size(case_id: str, case: Case) -> RunSpec | None:
    """Return the case's spec with norm and regularizer of the id; None if the rest is another's."""
    size = case.spec.batch_size
    found = re.fullmatch(rf"{re.escape(case.grid)}-([^-]+)-(.+)-b{size}", case_id)
    if found is None or not _names_a_norm(found[1]):
        return None
    try:
        strengths = regularizer_strengths(found[2])
    except ValueError:
        return None
    if any(name not in REGULARIZERS and ":" not in name for name in strengths):
        return None
    return dataclasses.replace(case.spec, norm=found[1], regularizer=found[2])


def _names_a_norm(norm: str) -> bool:
    return norm_family(norm) is not None or re.fullmatch(r"[\w.]+:\w+", norm) is not None


def _identity(file: Path) -> tuple[str, Path]:
    """Return what a file is known by: a link of another name makes a grid of its own."""
    return file.stem, file.resolve()


def _holds_claims(file: Path) -> bool:
    try:
        return is_claims_file(file)
    except CasesError:
        # told where the file is read
        return False


def _claimed(claims: Sequence[Claim]) -> list[Case]:
    return list({case.id: case for claim in claims for case in claim.cases}.values())
