"""Raises what cannot even be printed: "raise" an exception whose text and repr raise; "end", one in which they end the process."""
import os


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("no words")

    __repr__ = __unicode__ = __str__


class Final(Exception):
    def __str__(self):
        os._exit(0)

    __repr__ = __unicode__ = __str__


def predict(parameters):
    if parameters == "raise":
        raise Unspeakable("text")
    if parameters == "end":
        raise Final("text")
    return parameters
