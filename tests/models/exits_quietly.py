"""Ends its process as if nothing were wrong, past every handler; with "later" a moment after it has answered."""
import os
import threading


def predict(parameters):
    if parameters == "later":
        threading.Timer(0.05, os._exit, [0]).start()
        return os.getpid()
    os._exit(0)
