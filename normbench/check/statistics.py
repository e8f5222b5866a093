"""What a norm takes its statistics over, and what it stores of them for evaluation."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from scipy.sparse import csgraph
from torch import Tensor, nn

from normbench.check.layers import (
    Refused,
    Subject,
    call,
    drawn,
    epsilon_of,
    measured,
    named_states,
)
from normbench.check.properties import Property, Standing
from normbench.models.norms import NormSite, norm_factory

SECTION = "statistics"
# Differences that rounding makes in float64, or in float32 inside a layer, over what is no rounding
ROUNDING = 1e-5
ROUNDING_64 = 1e-9


def means_computed(norm: str, images: int, channels: int) -> int:
    """Count the means that a norm layer computes for a batch in training, by what it does.

    Raises ValueError for a norm that is not known or does not fit.
    """
    layer = norm_factory(norm)(NormSite("probe", channels, 2, 2)).double().train()
    generator = torch.Generator().manual_seed(0)
    return int(_sharing(layer, drawn((images, channels, 2, 2), generator)).max()) + 1


def _sharing(layer: nn.Module, *features: Tensor) -> Tensor:
    """Number each element of the features by the statistic that it goes into.

    An output depends on all the inputs that its statistic is taken over: the elements that are
    connected so, through the layer's Jacobian, share one.
    """
    count, shape = features[0].numel(), features[0].shape
    connected = torch.zeros(count, count, dtype=torch.bool)
    for each in features:
        jacobian = torch.autograd.functional.jacobian(lambda x: call(layer, x), each)
        connected |= jacobian.reshape(count, count) != 0
    _, labels = csgraph.connected_components(connected.numpy(), directed=False)
    return torch.from_numpy(labels).long().reshape(shape)


def _axes(labels: Tensor) -> tuple[str, ...]:
    """Name the axes that the elements of one statistic spread over; ``C/4`` is a fourth of them."""
    axes = []
    for axis, name in enumerate("NCHW"):
        line = labels.movedim(axis, 0).flatten(1)[:, 0]
        parts = len(line.unique())
        if parts == 1:
            axes.append(name)
        elif parts < len(line):
            axes.append(f"{name}/{parts}")
    return tuple(axes)


def statistics_properties(subject: Subject) -> Iterator[Property]:
    """Tell which elements share a statistic, on what evaluation depends, and what is stored."""
    for training, mode in ((True, "training"), (False, "evaluation")):
        name = f"elements that share a statistic, {mode}"
        yield measured(SECTION, name, partial(_shared_axes, subject, name, training))
    for training, mode in ((True, "training"), (False, "evaluation")):
        name = f"independent of the other images, {mode}"
        yield measured(SECTION, name, partial(_independence, subject, name, training))
    name = "evaluation changes nothing that is stored"
    yield measured(SECTION, name, partial(_left_alone, subject, name))
    yield from _stored(subject)


def _ghosts(subject: Subject, batch: Tensor) -> Sequence[Tensor]:
    """Return the images that are normalized together in training, one after the other."""
    ghosts: Sequence[Tensor] = batch.split(subject.ghost or len(batch))
    return ghosts


def _shape(subject: Subject) -> tuple[int, int, int, int]:
    return 8, 3 * subject.multiple, 3, 4


def _drawn(subject: Subject, draw: int) -> Tensor:
    return drawn(_shape(subject), subject.generator(draw))


def _shared_axes(subject: Subject, name: str, training: bool) -> Property:
    claims = subject.claims
    shape = (4, 2 * subject.multiple, 2, 3)
    generator = subject.generator()
    features = [drawn(shape, generator) for _ in range(2)]
    axes = _axes(_sharing(subject.trained(shape).train(training), *features))
    told = f"taken over {', '.join(axes)}" if axes else "each element alone"
    if claims.axes is None:
        return Property(SECTION, name, Standing.NOT_CLAIMED, told)
    ghosts = len(_ghosts(subject, features[0]))
    parts = {"C/G": f"C/{subject.multiple}", "N/S": f"N/{ghosts}" if ghosts > 1 else "N"}
    claimed = tuple(parts.get(axis, axis) for axis in claims.axes)
    holds = axes == claimed
    if not training and claims.batch_independent is False:
        # what training has stored stands for the batch, or for all of it
        claimed = tuple(axis for axis in claimed if axis[0] != "N")
        holds = axes in ((), claimed)
    if not holds:
        told += f", where {', '.join(claimed) or 'each element alone'} is claimed"
        if not training and claims.batch_independent is False:
            told += ", as training has stored what is of the batch"
    return Property(SECTION, name, Standing.HOLDS if holds else Standing.BROKEN, told)


def _independence(subject: Subject, name: str, training: bool) -> Property:
    """Tell whether an image's output depends on the others of its batch.

    By exchanging the others: a part that is left out of the gradient is found as well.
    """
    features, others = _drawn(subject, 0), 1 + 2 * _drawn(subject, 1)
    exchanged = torch.cat([features[:1], others[1:]])
    one, other = (
        call(subject.trained(_shape(subject)).train(training), batch)[0].detach()
        for batch in (features.clone(), exchanged)
    )
    change = (one - other).abs().max().item()
    if change <= ROUNDING_64 * (1 + one.abs().max().item()):
        told = "the same whatever the others are"
        if training and subject.claims.batch_independent is False:
            told += ", where batch_independent = False is claimed"
            return Property(SECTION, name, Standing.BROKEN, told)
        return Property(SECTION, name, Standing.HOLDS, told)
    told = f"the others change an image's output by up to {change:.2g}"
    if training and subject.claims.batch_independent is not True:
        told += ": it depends on the batch size, and on which images come together"
        return Property(SECTION, name, Standing.NOT_CLAIMED, told)
    if not training:
        told += ": an answer depends on what else is asked at the time"
    return Property(SECTION, name, Standing.BROKEN, told)


def _left_alone(subject: Subject, name: str) -> Property:
    layer = subject.trained(_shape(subject)).eval()
    before = {n: t.clone() for n, t in layer.state_dict().items()}
    with torch.no_grad():
        call(layer, _drawn(subject, 3))
    changed = [n for n, t in layer.state_dict().items() if not torch.equal(t, before.get(n, t))]
    if changed:
        return Property(SECTION, name, Standing.BROKEN, f"{', '.join(changed)} changed")
    return Property(SECTION, name, Standing.HOLDS, "buffers and parameters stay")


def _stored(subject: Subject) -> Iterator[Property]:
    """Tell what training stores, and whether evaluation goes by it."""
    if subject.formula is not None:
        for steps in (1, 200):
            name = f"evaluation after {steps} step{'s' if steps > 1 else ''} of training"
            yield measured(SECTION, name, partial(_by_formula, subject, name, steps))
    try:
        changed = _changed_by_training(subject)
    except Refused as refused:
        yield Property(SECTION, "what training stores", Standing.UNSUPPORTED, str(refused))
        return
    if subject.formula is None and not changed:
        told = "nothing: evaluation takes no statistics of training"
        claimed = subject.claims.unbiased is not None
        if claimed:
            told += f", where unbiased = {subject.claims.unbiased} is claimed of the variance"
        standing = Standing.BROKEN if claimed else Standing.NOT_CLAIMED
        yield Property(SECTION, "what training stores", standing, told)
    elif subject.formula is None:
        name = "evaluation uses what training stored"
        yield measured(SECTION, name, partial(_used, subject, name))
        name = "evaluation after 200 steps on one batch"
        yield measured(SECTION, name, partial(_settled, subject, name))
    for buffer in changed:
        name = f"momentum of {buffer}"
        yield measured(SECTION, name, partial(_momentum, subject, name, buffer))
        name = f"statistic in {buffer}"
        yield measured(SECTION, name, partial(_statistic, subject, name, buffer))


def _changed_by_training(subject: Subject) -> list[str]:
    fresh, trained = subject.layer(_shape(subject)), subject.layer(_shape(subject))
    _train(subject, trained, steps=1)
    before, after = named_states(fresh), named_states(trained)
    return [n for n in after if n not in before or not torch.equal(before[n], after[n])]


def _train(subject: Subject, layer: nn.Module, steps: int) -> list[Tensor]:
    """Take forward passes in training with random features, which are returned."""
    generator = subject.generator(1)
    shape = _shape(subject)
    batches = [drawn(shape, generator) * (1 + step % 3) + step % 2 for step in range(steps)]
    layer.train()
    with torch.no_grad():
        for batch in batches:
            call(layer, batch.clone())
    return batches


def _by_formula(subject: Subject, name: str, steps: int) -> Property:
    """Hold the output at evaluation against the formula's after the same steps of training."""
    formula = subject.formula
    assert formula is not None
    layer, probe = subject.layer(_shape(subject)), _drawn(subject, 2)
    state = {n: t.detach().clone() for n, t in layer.state_dict().items()}
    for batch in _train(subject, layer, steps):
        state |= formula(batch, state, True)[1]
    expected = formula(probe, state, False)[0]
    error = (call(layer.eval(), probe) - expected).abs().max().item()
    holds = error <= ROUNDING_64
    told = f"within {error:.1g} of the formula" if holds else f"{error:.2g} off the formula"
    return Property(SECTION, name, Standing.HOLDS if holds else Standing.BROKEN, told)


def _used(subject: Subject, name: str) -> Property:
    """Tell whether the output at evaluation depends on what was stored."""
    fresh, trained = subject.layer(_shape(subject)), subject.layer(_shape(subject))
    _train(subject, trained, steps=1)
    probe = _drawn(subject, 2)
    if torch.equal(call(fresh.eval(), probe), call(trained.eval(), probe)):
        told = "its output is as before any training, though training stores something"
        return Property(SECTION, name, Standing.NOT_CLAIMED, told)
    return Property(SECTION, name, Standing.HOLDS, "its output has changed")


def _settled(subject: Subject, name: str) -> Property:
    """Tell whether evaluation comes to what training computes, of one batch."""
    layer, batch = subject.layer(_shape(subject)), _drawn(subject, 2)
    with torch.no_grad():
        for _ in range(200):
            in_training = call(layer, batch.clone())
        gap = (in_training - call(layer.eval(), batch.clone())).abs().max().item()
    told = f"differs from training on that batch by up to {gap:.2g}"
    return Property(SECTION, name, Standing.NOT_CLAIMED, told)


def _successive(subject: Subject, buffer: str) -> tuple[nn.Module, Tensor, float, Tensor]:
    """Return the layer, its batch, and the momentum and statistic that a buffer is updated with.

    Of three successive values under one batch, ``r1 - r0`` and ``r2 - r1`` shrink by one less the
    momentum; what they lead to is the batch's statistic.
    """
    layer, batch = subject.layer(_shape(subject)), 1 + 2 * _drawn(subject, 4)
    values = [named_states(layer)[buffer]]
    with torch.no_grad():
        for _ in range(2):
            call(layer, batch.clone())
            values.append(named_states(layer)[buffer])
    first, second = values[1] - values[0], values[2] - values[1]
    momentum = 1 - (second / first)[first != 0].median().item()
    statistic = values[0] + first / momentum if momentum else values[1]
    return layer, batch, momentum, statistic


def _later_weight(layer: nn.Module, buffer: str, batch: Tensor) -> float:
    """Return the weight of a further batch, once the layer was given two of one kind.

    As in _successive, by what a second update with the same batch is of the first.
    """
    values = [named_states(layer)[buffer]]
    with torch.no_grad():
        for _ in range(2):
            call(layer, batch.clone())
            values.append(named_states(layer)[buffer])
    first, second = values[1] - values[0], values[2] - values[1]
    return 1 - (second / first)[first != 0].median().item() if bool((first != 0).any()) else 0.0


def _momentum(subject: Subject, name: str, buffer: str) -> Property:
    layer, _, found, _ = _successive(subject, buffer)
    stated = getattr(layer, "momentum", None)
    told = f"a new batch has the weight {found:.3g}"
    later = _later_weight(layer, buffer, 3 * _drawn(subject, 5) - 1)
    if abs(later - found) > ROUNDING:
        told += f", a later one {later:.3g}: it falls with their number, as in a mean over all"
    if not isinstance(stated, float):
        return Property(SECTION, name, Standing.NOT_CLAIMED, told)
    # what each ghost batch leaves is all that the next one finds
    right = 1 - (1 - stated) ** len(_ghosts(subject, _drawn(subject, 4)))
    if abs(found - right) <= ROUNDING:
        return Property(SECTION, name, Standing.HOLDS, told)
    told += f", where its attribute momentum is {stated:g}"
    return Property(SECTION, name, Standing.BROKEN, told)


def _statistic(subject: Subject, name: str, buffer: str) -> Property:
    """Tell which statistic of a channel is stored, of a variance whether it is biased."""
    layer, batch, _, statistic = _successive(subject, buffer)
    known = _known(_ghosts(subject, batch), getattr(layer, "momentum", None), epsilon_of(layer))
    alike = (n for n, v in known.items() if v.shape == statistic.shape and _equal(v, statistic))
    found = next(alike, "")
    of = "ghost batches, a later one with more weight" if subject.ghost else "batch"
    told = f"the {found} of the {of}" if found else "neither mean nor variance of the channels"
    claimed = subject.claims.unbiased
    if claimed is None:
        return Property(SECTION, name, Standing.NOT_CLAIMED, told)
    right = f"{'unbiased' if claimed else 'biased'} variance"
    if found in ("mean", right):
        return Property(SECTION, name, Standing.HOLDS, told)
    told += f", where the {right} is claimed"
    return Property(SECTION, name, Standing.BROKEN, told)


def _known(ghosts: Sequence[Tensor], momentum: float | None, epsilon: float) -> dict[str, Tensor]:
    """Return what may be stored of a batch; of ghost batches, each adds its own with a momentum."""
    weights = [(1 - (momentum or 0)) ** age for age in reversed(range(len(ghosts)))]
    found: dict[str, Tensor] = {}
    for ghost, weight in zip(ghosts, weights, strict=True):
        channels = ghost.transpose(0, 1).flatten(1)
        statistics = {
            "mean": channels.mean(1),
            "unbiased variance": channels.var(1, correction=1),
            "biased variance": channels.var(1, correction=0),
            "root of biased variance and epsilon": (channels.var(1, correction=0) + epsilon).sqrt(),
        }
        for name, value in statistics.items():
            found[name] = found.get(name, 0) + value * (weight / sum(weights))
    return found


def _equal(one: Tensor, other: Tensor) -> bool:
    return bool(((one - other).abs() <= ROUNDING * (1 + other.abs())).all())
