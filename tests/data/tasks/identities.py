"""Prints the identities of functions_of_all_kinds.py as JSON, with no more than a Python: any one.

python identities.py IDENTITY_FILE
"""

import importlib.util
import json
import pathlib
import sys


def loaded(path):
    """A module from its file, without its package."""
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    everything = loaded(pathlib.Path(__file__).with_name("functions_of_all_kinds.py")).EVERYTHING
    identity_of = loaded(sys.argv[1]).identity_of
    print(json.dumps({name: identity_of(thing) for name, thing in everything.items()}, indent=1))
