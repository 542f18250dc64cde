"""Finishes its call only because it was told to end: at SIGTERM, and lives on."""
import os
import signal
import time

told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(True))


def predict(parameters):
    while parameters == "late" and not told:
        time.sleep(0.005)
    return os.getpid()
