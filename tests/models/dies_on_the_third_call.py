"""Kills itself in its third call."""
import os
import signal

calls = 0


def predict(parameters):
    global calls
    calls += 1
    if calls == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return calls
