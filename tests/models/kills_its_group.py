"""Kills its process group, which is itself and what it has started."""
import os
import signal


def predict(parameters):
    if parameters == "kill":
        os.killpg(0, signal.SIGKILL)
    return parameters
