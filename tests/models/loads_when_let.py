"""Waits in its import until the file GATE is there."""
import os
import time

while not os.path.exists(os.environ["GATE"]):
    time.sleep(0.005)


def predict(parameters):
    return os.getpid()
