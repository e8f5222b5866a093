"""A run that was interrupted: what it goes on from, and that it ends as it would have."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from normbench.results import Epoch
from normbench.spec import RunSpec
from normbench.training import checkpoints, trainer
from normbench.training.data import ImageData, load_dataset
from normbench.training.recipes import recipe_spelling
from normbench.training.trainer import Training, train

from .own_norms import own_norm
from .test_trainer import without_times

CPU = torch.device("cpu")
SPEC = RunSpec("digits", "digits", "batch", epochs=4, recipe="digits", dropout=0.1)


@pytest.fixture
def digits(tmp_path: Path) -> ImageData:
    return load_dataset("digits", tmp_path, CPU)


@pytest.fixture(autouse=True)
def _every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "INTERVAL", 0.0)


def interrupt_after(epochs: int) -> Callable[[Epoch], None]:
    def note(epoch: Epoch) -> None:
        if epoch.epoch > epochs:
            raise KeyboardInterrupt

    return note


ADAMW = recipe_spelling({"from": "digits", "optimizer": "adamw", "schedule": "cosine"})
RMSPROP = recipe_spelling(
    {"from": "digits", "optimizer": "torch.optim:RMSprop", "learning_rate": 0.01}
)
SELECTING = recipe_spelling({"from": "digits", "selection": {"share": 0.3}})
MUON = recipe_spelling({"from": "digits", "optimizer": "muon", "test_time_flip": True})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm": "group:4", "regularizer": "l1:0.001+l2:0.001"},
        {"train_images": 300},
        {"recipe": ADAMW, "regularizer": "decoupled:0.1+l2:0.001"},
        {"recipe": RMSPROP, "norm": "batch_renorm"},
        {"recipe": SELECTING},
        {"recipe": MUON, "regularizer": "l2:0.001"},
    ],
)
def test_an_interrupted_run_ends_as_it_would_have(
    digits: ImageData, tmp_path: Path, changes: dict[str, Any]
) -> None:
    spec, file = dataclasses.replace(SPEC, **changes), tmp_path / "checkpoints" / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(spec, digits, CPU, interrupt_after(2), file)
    told: list[int] = []
    resumed = train(spec, digits, CPU, lambda epoch: told.append(epoch.epoch), file)
    assert told == [3, 4]
    assert without_times(resumed) == without_times(train(spec, digits, CPU))
    # it stays until the outcome is stored
    assert list(file.parent.iterdir()) == [file]


def test_time_spent_before_the_interruption_counts(digits: ImageData, tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(SPEC, digits, CPU, interrupt_after(3), file)
    spent = torch.load(file)["state"]["cpu_seconds"]
    assert spent > 0
    assert train(SPEC, digits, CPU, checkpoint_file=file).cpu_seconds > spent


def test_what_another_run_has_left_is_not_gone_on_from(digits: ImageData, tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(SPEC, digits, CPU, interrupt_after(2), file)
    told: list[int] = []
    other = SPEC.with_seed(1)
    train(other, digits, CPU, lambda epoch: told.append(epoch.epoch), file)
    assert told == [1, 2, 3, 4]


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04cut off"])
def test_a_damaged_checkpoint_is_not_gone_on_from(
    digits: ImageData, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "run.pt"
    file.write_bytes(content)
    spec = dataclasses.replace(SPEC, epochs=1)
    assert train(spec, digits, CPU, checkpoint_file=file).status == "ok"


def test_epochs_of_a_moment_are_not_saved(
    digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "INTERVAL", 3600.0)
    file = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(SPEC, digits, CPU, interrupt_after(2), file)
    assert not file.exists()


class Ramp(nn.Module):
    """Shifts features by the number of its training steps, which it keeps in a buffer."""

    steps: torch.Tensor | None

    def __init__(self, persistent: bool, late: bool) -> None:
        super().__init__()
        self.persistent, self.late = persistent, late
        self.register_buffer("steps", None if late else torch.zeros(()), persistent=persistent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.steps is None:
            self.steps = x.new_zeros(())
        if self.training:
            self.steps += 1
        return x + 0.01 * self.steps


class Growing(nn.Module):
    """Shifts features by the number of its training steps, by the length of a buffer."""

    steps: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.steps = x.new_zeros(len(self.steps) + 1)
        return x + 0.01 * len(self.steps)


@pytest.mark.parametrize(
    "build",
    [
        lambda _: Ramp(persistent=False, late=False),
        lambda _: Ramp(persistent=False, late=True),
        lambda _: Ramp(persistent=True, late=True),
        lambda _: Growing(),
        lambda _: nn.LazyBatchNorm2d(affine=False),
    ],
    ids=["not persistent", "made late", "persistent, made late", "growing", "lazy"],
)
def test_every_buffer_is_as_it_was(
    digits: ImageData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    build: Callable[[int], nn.Module],
) -> None:
    spec = dataclasses.replace(SPEC, norm=own_norm(monkeypatch, build), epochs=2)
    file = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(spec, digits, CPU, interrupt_after(1), file)
    told: list[int] = []
    resumed = train(spec, digits, CPU, lambda epoch: told.append(epoch.epoch), file)
    assert told == [2]
    assert without_times(resumed) == without_times(train(spec, digits, CPU))


def test_a_run_of_other_code_is_not_gone_on_from(
    digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(SPEC, digits, CPU, interrupt_after(2), file)
    monkeypatch.setattr(trainer, "code_digest", lambda norm: "edited since")
    told: list[int] = []
    run = train(SPEC, digits, CPU, lambda epoch: told.append(epoch.epoch), file)
    assert told == [1, 2, 3, 4]
    assert run.code == "edited since"


def lose_a_key(state: dict[str, Any]) -> None:
    del state["schedule"]


def lose_a_parameter(state: dict[str, Any]) -> None:
    del state["network"]["state_dict"]["classifier.weight"]


def change_a_shape(state: dict[str, Any]) -> None:
    state["network"]["state_dict"]["classifier.bias"] = torch.zeros(3)


@pytest.mark.parametrize("damage", [lose_a_key, lose_a_parameter, change_a_shape])
def test_a_run_that_cannot_be_restored_starts_from_its_beginning(
    digits: ImageData, tmp_path: Path, damage: Callable[[dict[str, Any]], None]
) -> None:
    file = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(SPEC, digits, CPU, interrupt_after(2), file)
    stored = torch.load(file)
    damage(stored["state"])
    torch.save(stored, file)
    told: list[int] = []
    with pytest.warns(UserWarning, match=r"cannot go on from the checkpoint .*run\.pt: .*; the r"):
        run = train(SPEC, digits, CPU, lambda epoch: told.append(epoch.epoch), file)
    assert told == [1, 2, 3, 4]
    # of a fresh network, whose weights and random numbers are those of the seed
    assert without_times(run) == without_times(train(SPEC, digits, CPU))


def test_a_truncated_checkpoint_is_not_gone_on_from(digits: ImageData, tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(SPEC, digits, CPU, interrupt_after(2), file)
    whole = file.read_bytes()
    for size in (1, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(KeyboardInterrupt):
            train(SPEC, digits, CPU, interrupt_after(0), file)


def test_a_checkpoint_that_cannot_be_saved_ends_no_run(digits: ImageData, tmp_path: Path) -> None:
    # a file stands where the folder should
    (tmp_path / "checkpoints").write_text("")
    file = tmp_path / "checkpoints" / "run.pt"
    with pytest.warns(UserWarning, match=r"cannot save the checkpoint .*run\.pt: ") as warned:
        run = train(SPEC, digits, CPU, checkpoint_file=file)
    assert len(warned) == 1
    assert without_times(run) == without_times(train(SPEC, digits, CPU))


def test_what_is_left_of_a_checkpoint_that_cannot_be_saved_is_removed(
    digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_the_disk(_: object, file: Path) -> None:
        file.write_bytes(b"as far as it went")
        raise RuntimeError("PytorchStreamWriter failed writing file data/3")

    monkeypatch.setattr(torch, "save", fill_the_disk)
    with pytest.warns(UserWarning, match=r"RuntimeError: PytorchStreamWriter .*; the run goes on"):
        assert train(SPEC, digits, CPU, checkpoint_file=tmp_path / "run.pt").status == "ok"
    assert list(tmp_path.iterdir()) == []


def test_what_another_gpu_has_saved_is_gone_on_from_on_the_run_s_own_device(
    digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.pt"
    with monkeypatch.context() as faked:
        # as torch notes the place of what lies on a GPU that is not here
        faked.setattr(torch.serialization, "location_tag", lambda _: "cuda:99")
        with pytest.raises(KeyboardInterrupt):
            train(SPEC, digits, CPU, interrupt_after(2), file)
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(file)
    told: list[int] = []
    resumed = train(SPEC, digits, CPU, lambda epoch: told.append(epoch.epoch), file)
    assert told == [3, 4]
    assert without_times(resumed) == without_times(train(SPEC, digits, CPU))


@pytest.mark.filterwarnings("ignore:for 0:UserWarning")
def test_a_buffer_that_is_restored_lies_where_its_network_does() -> None:
    saved = nn.Sequential(nn.Linear(2, 1), Ramp(persistent=False, late=True))
    saved(torch.zeros(3, 2))
    state = checkpoints.network_state(saved)
    # stands for a GPU: a device that is not the state's
    network = nn.Sequential(nn.Linear(2, 1), Ramp(persistent=False, late=True)).to("meta")
    checkpoints.restore_network(network, state)
    assert {name: str(buffer.device) for name, buffer in network.named_buffers()} == {
        "1.steps": "meta"
    }


def test_a_learning_rate_in_a_tensor_stays_where_a_captured_step_reads_it(
    digits: ImageData,
) -> None:
    def with_rate_in_tensor() -> Training:
        training = Training.begin(SPEC, digits, CPU)
        training.optimizer.param_groups[0]["lr"] = torch.tensor(0.25)
        return training

    saved, resumed = with_rate_in_tensor(), with_rate_in_tensor()
    saved.optimizer.param_groups[0]["lr"].fill_(0.125)
    rate = resumed.optimizer.param_groups[0]["lr"]
    resumed.restore(saved.state())
    assert resumed.optimizer.param_groups[0]["lr"] is rate
    assert rate == 0.125
