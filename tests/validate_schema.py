#!/usr/bin/env python3
"""Usage: validate_schema.py SCHEMA DOCUMENT...

Checks JSON documents against a JSON schema. One line for each violation; exit status 1 if there is
any, 2 if a file cannot be read.
"""
import json
import sys

import jsonschema


def load(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        sys.exit(2)


def main(paths):
    if len(paths) < 2:
        print(__doc__.split("\n", 1)[0], file=sys.stderr)
        return 2
    schema = load(paths[0])
    validator_class = jsonschema.validators.validator_for(schema)
    validator_class.check_schema(schema)
    validator = validator_class(schema)
    wrong = 0
    for path in paths[1:]:
        for error in sorted(validator.iter_errors(load(path)), key=lambda e: list(map(str, e.path))):
            where = "/".join(map(str, error.absolute_path))
            print(f"{path}: /{where}: {error.message[:200]}")
            wrong += 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
