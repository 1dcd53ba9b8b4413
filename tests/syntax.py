"""Parses every Python file of the repository. Fails if one is wrong, or if there is none."""

import ast
import pathlib
import sys

files = [path for path in pathlib.Path().rglob("*.py") if not {"target", ".local"} & set(path.parts)]
for path in files:
    ast.parse(path.read_text(encoding="utf-8"), str(path))
if not files:
    sys.exit("no Python file was found")
print(f"{len(files)} files")
