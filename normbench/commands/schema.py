"""Print the JSON Schema of cases files, or of claims files, by which an editor completes them."""

import argparse
import json

HELP = "print the JSON Schema of a cases file, for editors"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "kind",
        nargs="?",
        choices=("cases", "claims"),
        default="cases",
        help="which files it is for (default: cases)",
    )


def main(options: argparse.Namespace) -> int:
    from normbench.cases.schema import cases_schema, claims_schema

    schema = cases_schema() if options.kind == "cases" else claims_schema()
    print(json.dumps(schema, indent=1))
    return 0
