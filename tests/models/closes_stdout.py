"""Closes descriptor 1, and opens a file that gets its number."""
import os


def predict(parameters):
    if parameters == "close":
        os.close(1)
        return os.open(os.devnull, os.O_WRONLY)
    return parameters
