"""Calls a Python model as its author would have, with nothing of ModelHost's in the process.

    <python of the model's environment> run_python.py <folder of the model> <parameters, as JSON>

Runs on Python 2.7 and 3.6 alike. The folder's main.py is run as `python main.py` runs it, in a fresh `__main__`; then
its `setup` and `predict` are called. The result goes to stdout as JSON, what the model prints to stderr.
"""

from __future__ import print_function

import json
import os
import sys
import types


def run(folder, parameters):
    program = types.ModuleType("__main__")
    program.__file__ = "main.py"
    sys.modules["__main__"] = program
    sys.argv, sys.path[0] = ["main.py"], folder
    os.chdir(folder)
    with open("main.py", "rb") as source:
        exec(compile(source.read(), "main.py", "exec", dont_inherit=True), program.__dict__)

    arguments = [parameters]
    if hasattr(program, "setup"):
        state = program.setup()
        if program.predict.__code__.co_argcount == 2:
            arguments.append(state)
    return program.predict(*arguments)


def plain(value):
    """NumPy's arrays and scalars as Python's own."""
    return value.tolist()


if __name__ == "__main__":
    this_program = sys.modules["__main__"]  # Python 2 empties the globals of a module that nobody holds
    stdout, sys.stdout = sys.stdout, sys.stderr
    sys.dont_write_bytecode = True
    result = run(os.path.abspath(sys.argv[1]), json.loads(sys.argv[2]))
    print(json.dumps(result, default=plain, sort_keys=True), file=stdout)
