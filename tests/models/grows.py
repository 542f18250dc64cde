"""Takes memory and keeps it: so many MiB, by itself or with others.

While it is loaded, as many as KEEP_AT_FIRST says, or TAKE_AT_FIRST, which it does not survive. Parameters: {"take": MiB, "in": "itself", "child" or "stranger", one
that has left its session}; answers with its pid.
"""
import os
import time

kept = []


def take(megabytes):
    kept.append(bytearray(os.urandom(1 << 20)) * megabytes)


if "KEEP_AT_FIRST" in os.environ:
    take(int(os.environ["KEEP_AT_FIRST"]))
if "TAKE_AT_FIRST" in os.environ:
    take(int(os.environ["TAKE_AT_FIRST"]))
    time.sleep(600)


def predict(parameters):
    where = parameters.get("in", "itself")
    if where == "itself":
        take(parameters["take"])
    elif os.fork() == 0:
        if where == "stranger":
            os.setsid()
        take(parameters["take"])
        time.sleep(600)
        os._exit(0)
    while parameters.get("stay"):
        time.sleep(0.01)
    return os.getpid()
