"""Traces in a session: which there are, stored, told, and what fails."""

import json
from pathlib import Path

import pytest
import torch

from normbench.storage.traces import read_traces

from ..conftest import Project

SUITE = Path(__file__).parents[2] / "bench" / "test_trace.py"
ONE = ("-k", "test_tiny and batch and none or test_trace and tiny-batch-none")


def traced(project: Project) -> Project:
    """Give a project the suite's traces, of its own grid."""
    text = SUITE.read_text(encoding="utf-8")
    assert '"digits"' in text
    project.write("bench/test_trace.py", text.replace('"digits"', '"tiny"'))
    return project


def test_each_norm_and_regularizer_of_the_grid_is_traced_and_each_other_recipe(
    alone: Project,
) -> None:
    listed = traced(alone).run("--collect-only", "-q", "-k", "test_trace").outlines
    names = [line.partition("[")[2].rstrip("]") for line in listed if "::test_trace[" in line]
    assert names == [
        "cifar10-group:4",
        "fashion-mnist-none",
        "mnist-fast-l1-group:4",
        "mnist-fast-instance",
        "mnist-l1-layer_chw",
        "mnist-layer",
        "cifar10-best-layer",
        "cifar10-batch-size-instance",
        "mnist-batch-size-group:2",
        "mnist-textbook-layer",
        "tiny-batch-none",
        "tiny-batch-l1:0.001",
        "tiny-layer-none",
        "tiny-layer-l1:0.001",
    ]


def test_a_norm_alone_is_traced_alone(alone: Project) -> None:
    options = ("-k", "test_trace", "--bench-norm", "instance", "--bench-norm-only")
    listed = traced(alone).run("--collect-only", "-q", *options).outlines
    names = [line.partition("[")[2].rstrip("]") for line in listed if "::test_trace[" in line]
    others = ["mnist-fast-instance", "cifar10-batch-size-instance"]
    assert names == [*others, "tiny-instance-none", "tiny-instance-l1:0.001"]


def test_a_grid_that_is_not_there_is_refused(alone: Project) -> None:
    alone.write("bench/test_trace.py", SUITE.read_text(encoding="utf-8"))
    result = alone.run()
    result.stderr.fnmatch_lines(["*there is no grid 'digits'*"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_a_trace_is_stored_and_told(project: Project) -> None:
    result = traced(project).run("-k", "test_trace and tiny-batch-none")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*normbench: traces*", "1 trace, 0 broken (*; the largest error*"])
    (trace,) = project.stored.traces
    assert (trace.name, trace.broken, len(trace.losses)) == ("tiny-batch-none", (), 50)
    # of a worker its share of the cores
    assert trace.ground["threads"] in ("1", str(torch.get_num_threads()))
    assert "1 trace" in (project.session / "summary.md").read_text(encoding="utf-8")
    report = (project.session / "report.html").read_text(encoding="utf-8")
    assert "<h2>Traces</h2>" in report


def test_a_wrong_norm_fails_its_trace_at_a_step_and_tensor(alone: Project) -> None:
    traced(alone).norm("Noisy", "import torch\nreturn x + 0.01 * torch.rand_like(x)")
    options = ("--bench-norm", "own_norms:Noisy", "--bench-norm-only")
    result = alone.run("-k", "test_trace and none", *options)
    result.assert_outcomes(failed=1, deselected=3)
    result.stdout.fnmatch_lines(
        ["tiny-own_norms:Noisy-none: step 1, logits: the norm itself, in float64, *"]
    )
    (trace,) = alone.stored.traces
    assert trace.broken[0].startswith("step 1, logits: the norm itself")
    summary = (alone.session / "summary.md").read_text(encoding="utf-8")
    assert "**trace tiny-own_norms:Noisy-none: step 1, logits: the norm itself" in summary
    assert '<tr class="failed"><td>tiny-own_norms:Noisy-none' in (
        alone.session / "report.html"
    ).read_text(encoding="utf-8")


def test_a_norm_that_raises_in_training_breaks_its_trace(alone: Project) -> None:
    traced(alone).norm("Raises", "assert len(x) != 4, 'four images'\nreturn x")
    options = ("--bench-norm", "own_norms:Raises", "--bench-norm-only")
    alone.run("-k", "test_trace and none", *options).assert_outcomes(failed=1, deselected=3)
    (trace,) = alone.stored.traces
    assert trace.broken == ("raised AssertionError: four images",)
    summary = (alone.session / "summary.md").read_text(encoding="utf-8")
    assert "## normbench: 1 trace (1 broken)" in summary
    assert "**trace tiny-own_norms:Raises-none: raised AssertionError: four images**" in summary


def test_beside_a_baseline_a_trace_is_equal_or_broken_or_its_numerics_changed(
    alone: Project,
) -> None:
    traced(alone).run(*ONE, "--bench-save-baseline", "mine")
    file = alone.results / "reference" / "mine.json"
    compared = ("-k", "test_trace and tiny-batch-none", "--bench-baseline", str(file))
    assert alone.run(*compared).ret == 0
    (equal,) = alone.stored.traces
    assert (equal.broken, equal.beside, equal.equal_to) == ((), (), ("mine",))

    document = json.loads(file.read_text())
    digests = document["traces"][0]["digests"]
    digests["logits"] = digests["logits"][:24] + "ffffffff" + digests["logits"][32:]
    file.write_text(json.dumps(document))
    result = alone.run(*compared)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["1 trace, 1 broken, 0 of 1 equal to the bit to a baseline's (*"])
    result.stdout.fnmatch_lines(
        ["tiny-batch-none: differs from the baseline mine on the same machine, *at step 4, logits*"]
    )

    document["traces"][0]["ground"]["torch"] = "2.13.0"
    file.write_text(json.dumps(document))
    result = alone.run(*compared)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["tiny-batch-none: numerics changed since the baseline mine *"])
    (found,) = read_traces(alone.session)
    assert (found.broken, len(found.beside)) == ((), 1)
