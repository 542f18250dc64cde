"""Loops for ever when it is told to; with "stubborn" it does not even end at SIGTERM."""
import os
import signal


def predict(parameters):
    if parameters == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while parameters in ("loop", "stubborn"):
        pass
    return os.getpid()
