"""The JSON Schemas of cases and claims files, by which an editor completes them."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from normbench.cases.cases_file import CasesFile
from normbench.cases.claims_file import ClaimsFile
from normbench.cases.values import Table


class _TomlSchema(GenerateJsonSchema):
    """Leaves out null, which TOML has not: what may be None is a key that may be left out."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        described = super().default_schema(schema)
        return {k: v for k, v in described.items() if k != "default" or v is not None}


def cases_schema() -> dict[str, Any]:
    """Return the JSON Schema of cases files."""
    return _json_schema(CasesFile)


def claims_schema() -> dict[str, Any]:
    """Return the JSON Schema of claims files."""
    return _json_schema(ClaimsFile)


def _json_schema(model: type[Table]) -> dict[str, Any]:
    schema = model.model_json_schema(schema_generator=_TomlSchema)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}
