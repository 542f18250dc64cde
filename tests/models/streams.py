"""Yields numbers, and notes what it does in the file NOTES: `made:3`, `closed`.

Parameters: {"stop": how many, "item": what to yield instead, "raise": at which to raise, "die": at which to die,
"hang": at which to hang, "until": a path to wait for before each item but the first, "stubborn": not to end}. Anything
else is answered with the process's id.
"""
import itertools
import os
import time


def note(word):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(word + "\n")


def predict(parameters):
    return numbers(**parameters) if isinstance(parameters, dict) else os.getpid()


def numbers(**how):
    try:
        for number in itertools.count():
            if number == how.get("stop"):
                return
            if number == how.get("raise"):
                raise ValueError("no %d" % number)
            if number == how.get("die"):
                os.kill(os.getpid(), 9)
            while number == how.get("hang"):
                time.sleep(0.01)
            while number and "until" in how and not os.path.exists(how["until"]):
                time.sleep(0.005)
            print("number %d" % number)
            note("made:%d" % number)
            yield how["item"] * how.get("times", 1) if "item" in how else number
    except GeneratorExit:
        while "stubborn" in how:
            time.sleep(0.01)
        raise
    finally:
        note("closed")
