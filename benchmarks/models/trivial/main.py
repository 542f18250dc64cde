"""A model of the standard library alone: says which process it is in. Written for Python 3.6."""

import os


def predict(parameters):
    """Tell."""
    return os.getpid()
