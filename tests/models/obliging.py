"""Behaves. Says what ran, and waits where it is told to, so that tests can see and steer it.

Parameters: {"note": a word for the file NOTES, "until": a path to wait for, "sleep": seconds, "print": what to print,
"env": a variable to answer with}.
"""
import os
import sys
import time


def predict(parameters):
    if "note" in parameters:
        with open(os.environ["NOTES"], "a") as notes:
            notes.write(parameters["note"] + "\n")
    while "until" in parameters and not os.path.exists(parameters["until"]):
        time.sleep(0.005)
    time.sleep(parameters.get("sleep", 0))
    if "print" in parameters:
        sys.stdout.write(parameters["print"])
        sys.stdout.flush()
    answer = {"pid": os.getpid(), "note": parameters.get("note")}
    if "env" in parameters:
        answer["env"] = os.environ.get(parameters["env"])
    return answer
