"""The sum of numbers: of a tensor, as NumPy has it, or of an array in JSON. Written for Python 3.6."""

import numpy


def predict(parameters):
    """Add up."""
    if isinstance(parameters, dict):  # tensors, by name
        return {"sum": numpy.array([parameters["numbers"].sum()])}
    return sum(parameters)
