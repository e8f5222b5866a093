"""The norms, against closed forms in float64."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from normbench.models.families import FAMILIES, UnknownNorm, norm_family
from normbench.models.networks import check_network
from normbench.models.norms import (
    NormDoesNotFit,
    NormSite,
    brings_activation,
    check_layer,
    norm_factory,
    standardizes_weights,
)

SITE = NormSite("block1.norm", channels=16, height=3, width=5)
EPS = 1e-5


def build(name: str, site: NormSite = SITE) -> nn.Module:
    return norm_factory(name)(site)


def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 16, 3, 5, generator=generator)
    return 3 * x + torch.linspace(-2, 2, 16).view(1, 16, 1, 1)


def normalized(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    x = x.double()
    mean = x.mean(dims, keepdim=True)
    variance = (x - mean).square().mean(dims, keepdim=True)
    return (x - mean) / (variance + EPS).sqrt()


def grouped(x: torch.Tensor, groups: int) -> torch.Tensor:
    n, c, h, w = x.shape
    return normalized(x.reshape(n, groups, c // groups, h, w), (2, 3, 4)).view(n, c, h, w)


CLOSED_FORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda x: x.double(),
    "batch": lambda x: normalized(x, (0, 2, 3)),
    "layer": lambda x: normalized(x, (1, 2, 3)),
    "layer_chw": lambda x: normalized(x, (1, 2, 3)),
    "group:2": lambda x: grouped(x, 2),
    "group:4": lambda x: grouped(x, 4),
    "group:16": lambda x: normalized(x, (2, 3)),
    "instance": lambda x: normalized(x, (2, 3)),
    # left to itself, it has the wrong gradient for one image in channels_last
    "torch.nn:InstanceNorm2d": lambda x: normalized(x, (2, 3)),
}


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_each_norm_and_its_gradient_equal_the_closed_form(
    name: str, layout: torch.memory_format, count: int
) -> None:
    x = images()[:count].contiguous(memory_format=layout).requires_grad_()
    exact = x.detach().double().requires_grad_()
    output, expected = build(name)(x), CLOSED_FORMS[name](exact)
    torch.testing.assert_close(output.double(), expected, rtol=1e-4, atol=1e-5)
    weights = torch.linspace(-1, 1, x.numel()).view_as(expected).contiguous(memory_format=layout)
    output.backward(weights)
    expected.backward(weights.double())
    assert x.grad is not None
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("none", 0),
        ("batch", 32),
        ("layer", 32),
        ("layer_chw", 480),
        ("group:4", 32),
        ("instance", 32),
        ("rms", 32),
        ("frn", 48),
        ("grn", 32),
        ("batch_renorm", 32),
        ("ghost:16", 32),
        ("ws+group:4", 32),
        ("evonorm_s0:4", 48),
        ("dynamic_tanh", 33),
    ],
)
def test_a_norm_has_as_many_parameters_as_its_formula(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in build(name).parameters()) == parameters


@pytest.mark.parametrize("name", [family.example for family in FAMILIES.values()])
def test_what_is_said_of_batch_independence_is_true(name: str) -> None:
    x = images()
    layer = build(name).train()
    alone, together = layer(x[:1]), layer(x)[:1]
    independent = torch.allclose(alone, together, atol=1e-5)
    family = norm_family(name)
    assert family is not None
    assert family.claims.batch_independent == independent


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("group:8", "group:G"),
        ("ghost:64", "ghost:S"),
        ("evonorm_s0:1", "evonorm_s0:G"),
        ("ws+group:8", "ws+group:G"),
        ("batch", "batch"),
    ],
)
def test_a_norm_belongs_to_its_family_whatever_its_parameter(name: str, family: str) -> None:
    assert norm_family(name) is FAMILIES[family]


@pytest.mark.parametrize("name", ["batch", "layer", "instance", "rms", "ghost:2"])
def test_weights_may_be_standardized_before_any_norm_that_normalizes_the_scale(name: str) -> None:
    family, plain = norm_family(f"ws+{name}"), norm_family(name)
    assert family is not None
    assert plain is not None
    assert family.spelling == f"ws+{plain.spelling}"
    assert family.claims == plain.claims
    layer = build(f"ws+{name}")
    assert standardizes_weights(layer)
    assert type(layer) is type(build(name))


@pytest.mark.parametrize(
    "name", ["mypackage.norms:Mine", "ws+none", "ws+grn", "ws+ws+batch", "ws+mypackage:Mine", "ws+"]
)
def test_what_is_not_built_in_has_no_family(name: str) -> None:
    assert norm_family(name) is None


def test_weights_are_not_standardized_before_a_norm_that_keeps_the_scale() -> None:
    with pytest.raises(
        UnknownNorm,
        match=r"^unknown norm 'ws\+grn': expected ws\+ before one of batch, layer, layer_chw, "
        r"group:G, instance, rms, frn, batch_renorm, ghost:S; a norm of one's own has the "
        r"attribute standardizes_weights$",
    ):
        norm_factory("ws+grn")


@pytest.mark.parametrize("name", [family.example for family in FAMILIES.values()])
def test_the_activation_that_a_family_tells_of_is_the_layers(name: str) -> None:
    family = norm_family(name)
    assert family is not None
    assert brings_activation(build(name)) is bool(family.activation)


def test_a_group_count_that_does_not_divide_names_layer_channels_and_remedy() -> None:
    with pytest.raises(
        NormDoesNotFit,
        match=r"group:3 does not fit layer 'block1.norm': its 16 channels cannot be split into 3 "
        r"equal groups; use one of group:1, group:2, group:4, group:8, group:16$",
    ):
        build("group:3")
    with pytest.raises(NormDoesNotFit, match=r"^evonorm_s0:5 .* use one of evonorm_s0:1, evonorm"):
        build("evonorm_s0:5")


@pytest.mark.parametrize(
    "name", ["group:0", "group:", "group:04", "group:two", "group:-2", "group:2.0"]
)
def test_a_group_count_must_be_a_positive_whole_number(name: str) -> None:
    with pytest.raises(UnknownNorm, match=r"expected group:G with a whole number"):
        norm_factory(name)


def test_a_ghost_batch_must_have_a_whole_number_of_images() -> None:
    with pytest.raises(
        UnknownNorm,
        match=r"^unknown norm 'ghost:0': expected ghost:S with a whole number S of images in a "
        r"ghost batch, at least 1, such as ghost:2$",
    ):
        norm_factory("ghost:0")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNorm, match=r"unknown norm 'bach': expected one of none, batch, "):
        norm_factory("bach")


def test_a_factory_of_ones_own_takes_the_channels() -> None:
    layer = build("torch.nn:BatchNorm2d")
    x = images()
    assert layer(x).shape == x.shape
    assert sum(p.numel() for p in layer.parameters()) == 32


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "own_norms.py").write_text(
        "from torch import nn\n"
        "def sized(channels, height, width):\n"
        "    return nn.LayerNorm([channels, height, width])\n"
        "def flattening(channels):\n"
        "    class Flattening(nn.Module):\n"
        "        def forward(self, x):\n"
        "            return x.view(len(x), -1).view(x.shape)\n"
        "    return Flattening()\n"
        "def failing(channels):\n"
        "    raise RuntimeError('no such thing')\n"
        "def by_keyword(*, channels):\n"
        "    return nn.BatchNorm2d(channels)\n"
        "def text(channels):\n"
        "    return 'batch'\n"
        "def leaving(channels):\n"
        "    raise SystemExit\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_norms"
    sys.modules.pop("own_norms", None)


def test_a_factory_that_names_height_and_width_is_given_them(own_module: str) -> None:
    assert sum(p.numel() for p in build(f"{own_module}:sized").parameters()) == 2 * 16 * 3 * 5


def test_a_norm_of_ones_own_is_given_contiguous_features(own_module: str) -> None:
    x = images().to(memory_format=torch.channels_last)
    torch.testing.assert_close(build(f"{own_module}:flattening")(x), x)


@pytest.mark.parametrize(
    ("attribute", "error", "message"),
    [
        ("missing", UnknownNorm, r"has no attribute 'missing'"),
        ("number", UnknownNorm, r"is a int: expected something to call"),
        (
            "by_keyword",
            UnknownNorm,
            r"^norm 'own_norms:by_keyword' cannot be called with the number of channels alone: "
            r"too many positional arguments; expected a factory such as `def norm\(channels\): ",
        ),
        (
            "failing",
            NormDoesNotFit,
            r"for layer 'block1.norm' of 16 channels: RuntimeError: no such thing; expected a "
            r"torch.nn.Module for these channels; correct the factory, or take another norm ",
        ),
        ("leaving", NormDoesNotFit, r"16 channels: SystemExit; expected a torch.nn.Module"),
        (
            "text",
            NormDoesNotFit,
            r"returned a str for layer 'block1.norm': expected a class or function that returns a "
            r"torch.nn.Module$",
        ),
    ],
)
def test_a_factory_that_does_not_work_says_why(
    own_module: str, attribute: str, error: type[ValueError], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(f"{own_module}:{attribute}")


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownNorm, match=r"No module named 'no_such_module'"):
        norm_factory("no_such_module:Norm")


@pytest.mark.parametrize("module", ["..a", "a..b", "", "a b"])
def test_a_module_without_a_full_name_is_refused(module: str) -> None:
    with pytest.raises(
        UnknownNorm,
        match=rf"^unknown norm '{module}:b': '{module}' is no module's full name; expected package",
    ):
        norm_factory(f"{module}:b")


def test_a_builtin_without_a_signature_is_told_by_what_it_returns() -> None:
    with pytest.raises(NormDoesNotFit, match=r"^builtins:int returned a int for layer .*Module$"):
        build("builtins:int")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def (", r"SyntaxError: invalid syntax"),
        (
            "\nraise RuntimeError('no such thing')",
            r"RuntimeError: no such thing \(\S+/broken_norms\.py, line 2\); expected package",
        ),
        ("import nothing_here", r"No module named 'nothing_here' \(\S+broken_norms\.py, line 1\);"),
        ("raise SystemExit('enough')", r"SystemExit: enough"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_in_one_line(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_norms.py").write_text(f"{text}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownNorm, match=rf"^unknown norm 'broken_norms:x': {told}[^\n]*$"):
        norm_factory("broken_norms:x")


class Own(nn.Module):
    """A user's norm that scales its features by a parameter of its own."""

    def __init__(self, scale: object, trained: bool = True) -> None:
        super().__init__()
        if scale is not None:
            self.scale = nn.Parameter(torch.as_tensor(scale), requires_grad=trained)

    def forward(self, x: torch.Tensor) -> object:
        return x * self.scale


class Lazy(Own):
    def forward(self, x: torch.Tensor) -> object:
        if not hasattr(self, "scale"):
            self.scale = nn.Parameter(torch.ones(x.shape[1], 1, 1))
        return super().forward(x)


class Replacing(Own):
    def forward(self, x: torch.Tensor) -> object:
        self.scale.data = 1 / x.std((0, 2, 3)).view(-1, 1, 1)
        return super().forward(x)


class Halving(Own):
    def forward(self, x: torch.Tensor) -> object:
        return x.bfloat16()


class Pooling(Own):
    def forward(self, x: torch.Tensor) -> object:
        return x.mean((2, 3))


class Pairing(Own):
    def forward(self, x: torch.Tensor) -> object:
        return x, x.mean()


class Raising(Own):
    def forward(self, x: torch.Tensor) -> object:
        raise RuntimeError(f"{x.shape[2]} rows\n  of {x.shape[3]}")


WHOLE = r"float32 of shape \(2, 16, 3, 5\)"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            Lazy(None),
            r"^own in layer 'block1.norm' makes its parameter 'scale' in its first forward pass: "
            r"expected it as soon as the layer is built, [^;]*; make it in __init__",
        ),
        (Replacing(1.0), r"makes its parameter 'scale' in its first forward pass"),
        (nn.LazyBatchNorm2d(), r"makes its parameter 'weight' in its first forward pass"),
        (
            Own(torch.tensor(1.0).double()),
            r"^own in layer 'block1.norm' has a parameter 'scale' of float64: expected float32, as "
            r"the network is; make it that, or freeze it with requires_grad=False$",
        ),
        (nn.GroupNorm(4, 16).half(), r"has a parameter 'weight' of float16: expected float32"),
        (
            Halving(1.0),
            rf"^own in layer 'block1.norm' returned bfloat16 of shape \(2, 16, 3, 5\): expected "
            rf"{WHOLE}; return features of its input's shape and dtype$",
        ),
        (Pooling(1.0), rf"returned float32 of shape \(2, 16\): expected {WHOLE};"),
        (Pairing(1.0), rf"returned a tuple: expected {WHOLE};"),
        (
            Raising(1.0),
            rf"^own cannot take the features of layer 'block1.norm', {WHOLE}: RuntimeError: 3 "
            r"rows of 5$",
        ),
    ],
)
def test_a_layer_that_could_not_be_trained_as_it_is_is_refused(
    layer: nn.Module, message: str
) -> None:
    with pytest.raises(NormDoesNotFit, match=message):
        check_layer("own", layer, SITE)


@pytest.mark.parametrize("frozen", [torch.tensor(3), torch.tensor(True), torch.tensor(1.0).half()])
def test_what_is_frozen_may_be_of_any_type(frozen: torch.Tensor) -> None:
    check_layer("own", Own(frozen, trained=False), SITE)


def test_what_a_norm_keeps_of_the_check_can_be_trained_with() -> None:
    kept: list[torch.Tensor] = []

    class Keeping(Own):
        def forward(self, x: torch.Tensor) -> object:
            kept[:] = kept or [torch.full_like(x, 2)]
            return x * self.scale * kept[0]

    check_layer("own", Keeping(1.0), SITE)
    layer = Keeping(1.0)
    layer(torch.ones(2, 16, 3, 5)).sum().backward()
    assert layer.scale.grad == 2 * 2 * 16 * 3 * 5


def test_a_norm_of_ones_own_that_returns_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(nn.Module):
        def forward(self, *_: torch.Tensor) -> None:
            return None

    module = ModuleType("forgetful_norms")
    module.__dict__["forgetful"] = lambda _: Forgetful()
    monkeypatch.setitem(sys.modules, "forgetful_norms", module)
    with pytest.raises(NormDoesNotFit, match="returned a NoneType: expected float32 of shape"):
        check_network("digits", "forgetful_norms:forgetful")
