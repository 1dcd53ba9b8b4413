"""Checks a bill of materials with cyclonedx-python-lib: by the strict JSON schema of CycloneDX 1.6 with its formats, and by reading it.

Reads the document from standard input, and prints a JSON object: what the library understood of it.
"""

import json
import sys

from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def main():
    text = sys.stdin.read()
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if found is not None:
        raise ValueError(found)
    document = json.loads(text)
    # The schema takes any version.
    if document["specVersion"] != "1.6":
        raise ValueError(document["specVersion"])
    bom = Bom.from_json(document)
    bom.validate()
    root = bom.metadata.component
    print(
        json.dumps(
            {
                "name": root.name,
                "sha256": [one.content for one in root.hashes],
                "tools": [f"{one.group}/{one.name}@{one.version}" for one in bom.metadata.tools.components],
                "files": {
                    one.name: [hashed.content for hashed in one.hashes]
                    for one in bom.components
                    if one.type.value == "file"
                },
                "libraries": sorted(
                    [one.name, one.version, str(one.purl) if one.purl else None, one.scope.value]
                    for one in bom.components
                    if one.type.value == "library"
                ),
                "dependencies": {
                    one.ref.value: sorted(other.ref.value for other in one.dependencies) for one in bom.dependencies
                },
            }
        )
    )


main()
