"""Is never ready."""
import time


def setup():
    time.sleep(600)


def predict(parameters):
    return parameters
