"""The JSON Schemas of both kinds of files, and what may be imported without them."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from normbench.cases.case import TIERS
from normbench.cases.claims import is_claims_file
from normbench.cases.schema import cases_schema, claims_schema
from normbench.models.networks import NETWORKS
from normbench.training.datasets import DATASETS
from normbench.training.recipes import RECIPES

jsonschema = pytest.importorskip("jsonschema")

FILES = sorted((Path(__file__).parents[2] / "bench" / "cases").glob("*.toml"))


def validator(file: Path) -> Any:
    schema = claims_schema() if is_claims_file(file) else cases_schema()
    return jsonschema.validators.validator_for(schema)(schema)


def tables(value: object) -> list[dict[str, Any]]:
    """Return every table of a file but those whose keys are norms."""
    if isinstance(value, list):
        return [table for item in value for table in tables(item)]
    if not isinstance(value, dict):
        return []
    return [value, *(t for key, item in value.items() if key != "means" for t in tables(item))]


@pytest.mark.parametrize("schema", [cases_schema(), claims_schema()])
def test_each_is_a_json_schema(schema: dict[str, Any]) -> None:
    jsonschema.validators.validator_for(schema).check_schema(schema)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_of_the_suite_is_as_the_schema_says(file: Path) -> None:
    assert list(validator(file).iter_errors(tomllib.loads(file.read_text()))) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_unknown_key_in_any_table_is_not_as_the_schema_says(file: Path) -> None:
    content = tomllib.loads(file.read_text())
    known = validator(file)
    for table in tables(content):
        table["unknown"] = 1
        assert not known.is_valid(content)
        del table["unknown"]
    assert known.is_valid(content)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", 2),
        ("tier", "nightly"),
        ("dataset", "emnist"),
        ("epochs", 0),
        ("epochs", "8"),
        ("dropout", 1),
        ("grid", []),
        ("target", [{"test_accuracy": 101}]),
        ("grid", [{"norm": "batch", "regularizer": [{}], "batch_size": [64]}]),
        ("grid", [{"norm": ["bach"], "regularizer": [{}], "batch_size": [64]}]),
    ],
)
def test_a_wrong_value_is_not_as_the_schema_says(key: str, value: object) -> None:
    file = next(file for file in FILES if file.stem == "digits")
    content = tomllib.loads(file.read_text())
    assert not validator(file).is_valid({**content, key: value})


@pytest.mark.parametrize("norm", ["layer_chw", "group:32", "mypkg.norms:RMSNorm2d"])
def test_norms_of_the_users_own_are_as_the_schema_says(norm: str) -> None:
    file = next(file for file in FILES if file.stem == "digits")
    content = tomllib.loads(file.read_text())
    content["grid"][0]["norm"] = [norm]
    assert validator(file).is_valid(content)


def test_networks_of_the_users_own_are_as_the_schema_says() -> None:
    file = next(file for file in FILES if file.stem == "digits")
    content = tomllib.loads(file.read_text())
    assert validator(file).is_valid({**content, "network": "mypkg.nets:TinyResNet"})
    assert not validator(file).is_valid({**content, "network": "TinyResNet"})


@pytest.mark.parametrize("dataset", ["kmnist-heldout", "folder:a/b", "mypkg.data:load-heldout"])
def test_data_sets_of_the_users_own_are_as_the_schema_says(dataset: str) -> None:
    file = next(file for file in FILES if file.stem == "digits")
    content = tomllib.loads(file.read_text())
    assert validator(file).is_valid({**content, "dataset": dataset})


def test_an_editor_completes_the_names_of_what_there_is() -> None:
    keys = cases_schema()["properties"]
    assert keys["tier"]["enum"] == list(TIERS)
    assert keys["network"]["anyOf"][0]["enum"] == list(NETWORKS)
    assert keys["recipe"]["anyOf"][0]["enum"] == list(RECIPES)
    assert keys["dataset"]["anyOf"][0]["enum"] == list(DATASETS)
    assert {"fashion-mnist", "svhn-heldout"} <= set(DATASETS)
    norms = cases_schema()["$defs"]["Grid"]["properties"]["norm"]["items"]
    assert {"none", "layer_chw", "group:4", "instance"} <= set(norms["examples"])
    assert {"batch", "layer", "instance"} <= set(norms["anyOf"][0]["enum"])


@pytest.mark.parametrize("schema", [cases_schema(), claims_schema()])
def test_every_table_and_key_has_a_title_and_a_description_and_no_null(
    schema: dict[str, Any],
) -> None:
    for table in (schema, *schema["$defs"].values()):
        assert table["title"]
        assert table["description"]
        assert table["additionalProperties"] is False
        for described in table["properties"].values():
            assert described["description"].endswith(".")
            assert described.get("title") or "$ref" in described
    assert "null" not in str(schema)
    assert "None" not in str(schema)


def test_cases_are_free_of_torch_and_pydantic() -> None:
    code = (
        "import sys, normbench.cases.case; "
        "print([name for name in ('torch', 'pydantic') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
