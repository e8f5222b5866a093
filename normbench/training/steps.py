"""One step of training: plain, and captured as a CUDA graph."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.models.regularizers import Parameters, Regularizer

# Maps a batch's images and labels to its logits, and updates the network.
Step = Callable[[Tensor, Tensor], Tensor]

# Steps that a network takes before it is captured: libraries choose their kernels in the first.
WARM_UP_STEPS = 3


class FlatParameters:
    """The parameters that a network trains, and their gradients, as views of two vectors.

    The optimizer and the elementwise regularizers then take one operation for all layers; on small
    networks the calls would otherwise cost as much as the arithmetic. ``named`` has the network's
    own parameters. Convolution kernels lie in memory
    as channels_last has them, which the CPU's convolutions need to be fast. A frozen parameter
    stays as it is. Raises ValueError for parameters of several types.
    """

    def __init__(self, network: nn.Module) -> None:
        self.named = {n: p for n, p in network.named_parameters() if p.requires_grad}
        parameters = list(self.named.values())
        if len(dtypes := {p.dtype for p in parameters}) > 1:
            raise ValueError(
                f"the parameters are {' and '.join(sorted(map(str, dtypes)))}: expected one type; "
                "freeze the others with requires_grad=False"
            )
        count = sum(p.numel() for p in parameters)
        values = parameters[0].new_empty(count)
        self.gradient = torch.zeros_like(values)
        start = 0
        for parameter in parameters:
            end = start + parameter.numel()
            view = _channels_last_view(values[start:end], parameter.shape)
            parameter.data = view.copy_(parameter.data)
            parameter.grad = _channels_last_view(self.gradient[start:end], parameter.shape)
            start = end
        self.values = nn.Parameter(values)
        self.values.grad = self.gradient


def _channels_last_view(flat: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) != 4:
        return flat.view(shape)
    outputs, inputs, height, width = shape
    return flat.view(outputs, height, width, inputs).permute(0, 3, 1, 2)


class TrainingStep:
    """Forward, backward, the regularizers and the optimizer's update, all on the batch's device.

    Nothing in it waits for the device.
    """

    def __init__(
        self,
        network: nn.Module,
        flat: FlatParameters,
        optimizer: torch.optim.Optimizer,
        regularizers: Sequence[Regularizer],
        label_smoothing: float,
        gradient_clipping: float = 0.0,
    ) -> None:
        self.network = network
        self.flat = flat
        self.optimizer = optimizer
        self.regularizers = regularizers
        self.label_smoothing = label_smoothing
        self.gradient_clipping = gradient_clipping

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take the step; return the logits that the network gave before it."""
        self.flat.gradient.zero_()
        logits: Tensor = self.network(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        for regularizer in self.regularizers:
            if (penalty := regularizer.penalty(self.flat.named)) is not None:
                loss = loss + penalty
        loss.backward()
        if self.gradient_clipping:
            self._clip()
        self._regularize()
        self.optimizer.step()
        return logits.detach()

    def _clip(self) -> None:
        """Scale the gradient to the largest norm that it may have, as clip_grad_norm_ does."""
        share = self.gradient_clipping / (self.flat.gradient.norm() + 1e-6)
        self.flat.gradient.mul_(share.clamp(max=1.0))

    @torch.no_grad()
    def _regularize(self) -> None:
        """Change the gradients first, so that no regularizer sees weights that another changed."""
        rate = self.optimizer.param_groups[0]["lr"]
        everything: Parameters = {"": self.flat.values}
        given = [(r, everything if r.elementwise else self.flat.named) for r in self.regularizers]
        for regularizer, parameters in given:
            regularizer.change_gradients(parameters)
        for regularizer, parameters in given:
            regularizer.change_weights(parameters, rate)

    def state(self) -> list[Tensor]:
        """Return the tensors that a step changes, the optimizer's once it has any."""
        momentum = [
            value
            for state in self.optimizer.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        ]
        # in a frozen parameter a norm may keep what others keep in a buffer
        frozen = (p for p in self.network.parameters() if not p.requires_grad)
        return [self.flat.values.detach(), *self.network.buffers(), *frozen, *momentum]


@contextmanager
def rolled_back(step: TrainingStep) -> Iterator[None]:
    """Let steps be taken, and leave everything as if they had not been.

    The optimizer's momentum, where they made it, stays and is zero, which is the same.
    """
    before = step.state()
    kept = [tensor.clone() for tensor in before]
    buffers = dict(step.network.named_buffers())
    try:
        yield
    finally:
        for name in replaced_buffers(step.network, buffers):
            module, _, buffer = name.rpartition(".")
            setattr(step.network.get_submodule(module), buffer, buffers.get(name))
        for tensor in step.state()[len(before) :]:
            tensor.zero_()
        for tensor, value in zip(before, kept, strict=True):
            tensor.copy_(value)


def replaced_buffers(network: nn.Module, before: dict[str, Tensor]) -> list[str]:
    """Return the names of the buffers that are other tensors than before, or were none."""
    return [name for name, buffer in network.named_buffers() if before.get(name) is not buffer]


class CapturedStep:
    """A training step that is launched as a whole, as one CUDA graph.

    On a network this small the GPU is done with an operation before the next one is launched, so
    that launching takes the time. The graph is captured at the first call; all batches must have
    the first one's shape, and the learning rate must be a tensor on the device. Where a norm does
    what cannot be captured, such as to look at a value, or what a graph would repeat as it was at
    the capture, such as to count in Python or to put a new tensor in a buffer's place, the steps
    stay plain, with a warning: one replay must do what one plain step from the same state does.

    Source: PyTorch's notes on CUDA semantics, CUDA graphs: whole-network capture.
    """

    def __init__(self, step: TrainingStep, capture: "Capture | None" = None) -> None:
        self.step = step
        self.capture = capture or captured_graph
        self.replay: Step | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        if self.replay is None:
            try:
                self.replay = self._trusted(images, labels)
            except RuntimeError as error:
                warnings.warn(
                    f"the training step cannot be captured in a CUDA graph, and is launched an "
                    f"operation at a time, which is slower: {error}",
                    stacklevel=2,
                )
                self.replay = self.step
        return self.replay(images, labels)

    def _trusted(self, images: Tensor, labels: Tensor) -> Step:
        with tried(self.step, images.device):
            replay = self.capture(self.step, images, labels)
        if found := difference(self.step, replay, images, labels):
            raise RuntimeError(f"a replay is not what a plain step is: {found}")
        return replay


# Turns a step into one that replays it for batches of the same shape.
Capture = Callable[[TrainingStep, Tensor, Tensor], Step]


@contextmanager
def tried(step: TrainingStep, device: torch.device) -> Iterator[None]:
    """Let steps be taken, and leave the state and the random numbers as if they had not been."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), rolled_back(step):
        yield


def captured_graph(step: TrainingStep, images: Tensor, labels: Tensor) -> Step:
    """Return the step as a CUDA graph; it changes the state on the way.

    Raises RuntimeError where that cannot be done.
    """
    static_images, static_labels = images.clone(), labels.clone()
    stream = torch.cuda.Stream(images.device)
    buffers = dict(step.network.named_buffers())
    stream.wait_stream(torch.cuda.current_stream(images.device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_STEPS):
            step(static_images, static_labels)
    torch.cuda.current_stream(images.device).wait_stream(stream)
    if names := replaced_buffers(step.network, buffers):
        raise RuntimeError(f"{names[0]} is replaced, and not updated in place")
    graph = torch.cuda.CUDAGraph()
    # without a stream it is one of the first device that a graph was captured on in this process:
    # the graphs of all others would be empty (pytorch 87794)
    with generator_kept(images.device), torch.cuda.graph(graph, stream=stream):
        logits = step(static_images, static_labels)

    def replay(images: Tensor, labels: Tensor) -> Tensor:
        static_images.copy_(images)
        static_labels.copy_(labels)
        graph.replay()
        return logits.clone()

    return replay


@contextmanager
def generator_kept(device: torch.device) -> Iterator[None]:
    """Put a GPU's random numbers back to where they were if a capture fails.

    The generator would stay in capture mode, in which it refuses to draw: the next dropout of this
    process would raise "Offset increment outside graph capture".
    """
    generator = torch.cuda.default_generators[device.index or 0]
    kept = generator.clone_state()
    try:
        yield
    except BaseException:
        generator.graphsafe_set_state(kept)
        raise


# Of what a step changes in a tensor: sums in another order make less, what is frozen makes more.
REPLAY_TOLERANCE = 1e-3
ROUNDING = 1e-6


def difference(step: TrainingStep, replay: Step, images: Tensor, labels: Tensor) -> str:
    """Say how a replay differs from a plain step from the same state; empty where it does not.

    Each tensor that a step leaves, and the logits, must agree within REPLAY_TOLERANCE of what the
    plain step changed in it (of all of it, for the logits) and ROUNDING of its norm.
    """
    plain, replayed = (_outcome(step, each, images, labels) for each in (step, replay))
    # not before these, or the optimizer's momentum might not be there yet
    before = [torch.zeros_like(plain[0]), *step.state()]
    if len(plain) != len(before) or len(replayed) != len(before):
        return "it does not keep its tensors"
    for number, (old, one, other) in enumerate(zip(before, plain, replayed, strict=True)):
        old, one, other = old.double(), one.double(), other.double()
        apart = (other - one).norm()
        bound = REPLAY_TOLERANCE * (one - old).norm() + ROUNDING * one.norm()
        if not apart <= bound:
            name = f"tensor {number} of the state" if number else "the logits"
            return f"{name} differ by {apart:.3g}, more than {bound:.3g}"
    return ""


def _outcome(step: TrainingStep, taken: Step, images: Tensor, labels: Tensor) -> list[Tensor]:
    with tried(step, images.device):
        logits = taken(images, labels)
        return [logits.clone(), *(tensor.clone() for tensor in step.state())]
