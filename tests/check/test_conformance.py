import pytest

from normbench.check.conformance import check_network, check_norm, check_regularizer
from normbench.check.properties import Checked, Standing
from normbench.models.families import FAMILIES, UnknownNorm
from normbench.models.norms import NormDoesNotFit

from ..models import own_networks

OWN = f"{__package__}.wrong_norms"
BUILT_IN = [*(family.example for family in FAMILIES.values()), "ws+batch"]


def checked(name: str) -> Checked:
    return check_norm(name if name in BUILT_IN else f"{OWN}:{name}", compiling=False, costs=False)


def standing(found: Checked, name: str) -> Standing:
    (only,) = (each for each in found.properties if each.name == name)
    return only.standing


def broken(found: Checked) -> set[str]:
    return {each.name for each in found.of(Standing.BROKEN)}


@pytest.mark.parametrize("norm", BUILT_IN)
def test_a_built_in_norm_is_what_its_paper_says(norm: str) -> None:
    found = checked(norm)
    assert found.broken == []
    assert found.counts["holds"] > 50


@pytest.mark.parametrize("seed", [1, 2**32 - 1])
def test_it_is_so_whatever_is_drawn(seed: int) -> None:
    first, other = (check_norm("group:4", compiling=False, costs=False, seed=s) for s in (0, seed))
    assert other.broken == []
    assert [p.told for p in other.properties] != [p.told for p in first.properties]


@pytest.mark.parametrize("norm", ["Right", "RootMeanSquare"])
def test_a_right_norm_of_ones_own_is_found_right(norm: str) -> None:
    assert checked(norm).broken == []


@pytest.mark.parametrize(
    ("norm", "property_"),
    [
        ("DetachedDeviation", "gradient of the input, training"),
        ("DetachedWeight", "gradient of shift, training"),
        ("WrongAxes", "elements that share a statistic, training"),
        ("LooksAtOthers", "independent of the other images, evaluation"),
        ("LooksAtOthers", "independent of the other images, training"),
        ("BatchAtEvaluation", "independent of the other images, evaluation"),
        ("ChangesAtEvaluation", "evaluation changes nothing that is stored"),
        ("OtherMomentum", "momentum of running_mean"),
        ("BiasedVariance", "statistic in running_var"),
        ("OnePassVariance", "a mean of 10,000 deviations"),
        ("ReadsGradientInTheWrongOrder", "features contiguous, gradient channels_last"),
        ("ReadsGradientInTheWrongOrder", "one image, both channels_last"),
        ("WritesToItsInput", "input and gradient not written to"),
        ("SaysThatItDepends", "independent of the other images, training"),
        ("SaysThatItStores", "what training stores"),
        ("Random", "deterministic"),
        ("Random", "no random numbers drawn"),
        ("LosesState", "state_dict stored and loaded"),
        ("SharesWithItsCopy", "deepcopy"),
        ("OverflowsInHalf", "float16 layer and features"),
        ("OverflowsInHalfChannelsLast", "float16 layer and features, channels_last"),
        ("AnyChannels", "other channels refused"),
    ],
)
def test_a_norm_that_is_wrong_is_found_so(norm: str, property_: str) -> None:
    assert standing(checked(norm), property_) is Standing.BROKEN


def test_one_mistake_breaks_what_it_is_about_alone() -> None:
    assert broken(checked("BatchAtEvaluation")) == {"independent of the other images, evaluation"}
    assert broken(checked("OtherMomentum")) == {
        "momentum of running_mean",
        "momentum of running_var",
    }


def test_a_gradient_that_is_stopped_on_purpose_is_no_mistake() -> None:
    found = checked("DeclaredStop")
    assert found.broken == []
    assert standing(found, "gradient of the input, training") is Standing.NOT_CLAIMED


def test_what_the_layer_refuses_itself_is_unsupported() -> None:
    found = checked("RefusesOddBatches")
    assert found.broken == []
    assert {each.name: each.told for each in found.of(Standing.UNSUPPORTED)}["batch of 5"] == (
        "ValueError: 5 images: expected an even number"
    )
    assert standing(found, "batch of 64") is Standing.HOLDS


def test_a_norm_of_contiguous_features_alone_refuses_the_others() -> None:
    found = checked("OnlyContiguous")
    assert found.broken == []
    assert standing(found, "features channels_last, gradient contiguous") is Standing.UNSUPPORTED


def test_what_is_not_claimed_is_measured_and_told() -> None:
    told = {each.name: (each.standing, each.told) for each in checked("RootMeanSquare").properties}
    assert told["elements that share a statistic, training"] == (
        Standing.NOT_CLAIMED,
        "taken over C, H, W",
    )
    assert told["shift"][0] is Standing.NOT_CLAIMED
    assert told["shift"][1].startswith("not there: the output changes by 0.")
    assert told["scale"][1].startswith("there: the size of the weights before it does not matter")


def test_torchs_instance_norm_has_the_wrong_gradient_for_one_image() -> None:
    found = check_norm("torch.nn:InstanceNorm2d", compiling=False, costs=False)
    assert broken(found) == {
        "one image, features contiguous, gradient channels_last",
        "one image, both channels_last",
    }


def test_a_norm_that_fits_no_network_is_refused_before_anything_is_checked() -> None:
    with pytest.raises(NormDoesNotFit, match="returned float64 of shape"):
        check_norm(f"{__name__}:double")
    with pytest.raises(UnknownNorm, match="unknown norm 'bach'"):
        check_norm("bach")


def double(channels: int) -> object:
    from torch import Tensor, nn

    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.double()

    return Double()


@pytest.mark.parametrize("name", ["none", "l1:0.001", "l2:0.01", "l1:0.001+l2:0.1"])
def test_a_regularizer_is_its_penaltys_gradient_on_every_parameter(name: str) -> None:
    found = check_regularizer(name)
    assert found.broken == []
    assert found.counts == {"holds": 3}


@pytest.mark.parametrize("name", ["l3:1", "l1", "l1:-1", "l1:nan", "l1:1+l1:2", ""])
def test_a_name_that_spells_no_regularizer_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="unknown regularizer '"):
        check_regularizer(name)


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "preact"])
def test_every_part_of_a_network_takes_part(name: str) -> None:
    assert check_network(name).broken == []


def test_a_branch_of_ones_own_network_may_begin_at_zero() -> None:
    found = check_network(f"{own_networks.__name__}:ZeroBranch", dataset="digits")
    assert found.broken == []
    not_claimed = {(each.section, each.name) for each in found.of(Standing.NOT_CLAIMED)}
    assert not_claimed == {
        *(
            (f"with norm {n}", "every parameter gets a gradient")
            for n in ("batch", "layer", "none")
        ),
        *((f"with norm {n}", "the norm has an effect at every site") for n in ("batch", "layer")),
    }
    assert found.properties[0].told == "for 1, 2 and 7 images of 1 x 8 x 8"


def test_a_network_that_depends_on_the_batch_in_evaluation_is_broken() -> None:
    found = check_network(f"{own_networks.__name__}:Centred", dataset="digits")
    assert [each.split(":")[0] for each in found.broken] == [
        f"with norm {norm}, images apart at evaluation" for norm in ("batch", "layer", "none")
    ]


def test_a_network_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown network 'resnet'"):
        check_network("resnet")


def test_compiled_it_is_the_same_and_its_costs_are_told() -> None:
    found = check_norm("layer")
    assert standing(found, "torch.compile, training") in (Standing.HOLDS, Standing.SKIPPED)
    costs = [each for each in found.properties if each.section == "cost"]
    assert [each.name for each in costs] == [
        "64 x 16 x 12 x 12",
        "64 x 32 x 4 x 4",
        "8 x 64 x 32 x 32",
    ]
    assert all("times BatchNorm2d's time; keeps 1.0" in each.told for each in costs)


def test_a_layer_that_works_in_place_is_checked_all_the_same() -> None:
    found = checked("WorksInPlace")
    assert standing(found, "batch of 64") is Standing.HOLDS
    # where it gets the user's own tensor
    assert broken(found) == {"input and gradient not written to"}


def test_a_mean_of_all_batches_is_told_as_one() -> None:
    told = {each.name: each.told for each in checked("MeanOfAllBatches").properties}
    assert told["momentum of running_mean"] == (
        "a new batch has the weight 1, a later one 0.5: it falls with their number, as in a mean "
        "over all"
    )


def test_a_random_layer_is_told_as_one_and_not_as_imprecise() -> None:
    told = {each.name: each.told for each in checked("Random").properties}
    assert told["batch of 64"] == "the layer's output differs from call to call"
    assert told["float64 in, float64 inside"].startswith("its output differs from call to call")
