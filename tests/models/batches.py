"""Has a batch function. Says what ran together, and does what it is told to, so that tests can see and steer it.

Parameters: {"note": a word for the file NOTES, where those of a batch stand as one, "a+b", "until": a path to wait for,
"sleep": seconds, "print": what to print, "size": of the answer, "do": "fail", only this call; "poison", the whole batch that it is in;
"die"}.
"""
import os
import time


class InvalidParameters(Exception):
    pass


def predict(parameters):
    prepare([parameters])
    if parameters.get("do") == "poison":
        raise ValueError("poisoned")
    result = outcome(parameters)
    if isinstance(result, Exception):
        raise result
    return result


def predict_batch(batch):
    prepare(batch)
    if "poison" in [parameters.get("do") for parameters in batch]:
        raise ValueError("poisoned")
    return [outcome(parameters) for parameters in batch]


def prepare(batch):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write("+".join(str(parameters.get("note")) for parameters in batch) + "\n")
    for parameters in batch:
        while "until" in parameters and not os.path.exists(parameters["until"]):
            time.sleep(0.005)
        time.sleep(parameters.get("sleep", 0))
        if "print" in parameters:
            print(parameters["print"])
        if parameters.get("do") == "die":
            os._exit(3)


def outcome(parameters):
    if parameters.get("do") == "fail":
        try:
            raise InvalidParameters("not this one")
        except InvalidParameters as error:
            return error
    return {"pid": os.getpid(), "note": parameters.get("note"), "much": "x" * parameters.get("size", 0)}
