"""Does what its caller tells it to: `{"do": "echo", "with": {"value": 1}}`. For every Python."""

import os
import sys
import time


class InvalidParameters(ValueError):
    pass


class Elsewhere(InvalidParameters):
    pass


def predict(parameters):
    return globals()["do_" + parameters["do"]](**parameters.get("with", {}))


def do_nothing():
    return os.getpid()


def do_tell_types(value):
    return [type(item).__name__ for item in value]


def do_echo(value):
    return value


def do_say(lines):
    for number in range(lines):
        print("line %d" % number)
    return lines


def do_reject():
    raise InvalidParameters("age must not be negative")


def do_reject_otherwise():
    raise Elsewhere(u"\u00e4ge")


def do_raise():
    secret = "only in the log"
    raise ZeroDivisionError("so it goes")


def do_die():
    os.kill(os.getpid(), 9)


def do_leave():
    sys.exit(3)


def do_wait(path):
    while not os.path.exists(path):
        time.sleep(0.005)
    return os.getpid()


def do_return_much(size):
    return "x" * size


def do_return_set():
    return {"a": [1, {"b": {1, 2}}]}


def do_return_infinity():
    return [1.0, float("inf")]


def do_return_itself():
    loop = []
    loop.append(loop)
    return loop


def do_return_digits(count):
    return 10 ** count


def do_return_zeros(count):
    return [0] * count


def do_return_depth(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def do_count(stop=None, item=None, times=1, notes="", fail_at=None, die_at=None, wait_at=None, path=""):
    for_notes = open(notes, "a") if notes else None
    number = 0
    try:
        while number != stop:
            if number == fail_at:
                raise ZeroDivisionError("so it goes")
            if number == die_at:
                os.kill(os.getpid(), 9)
            while number == wait_at and not os.path.exists(path):
                time.sleep(0.005)
            print("item %d" % number)
            if for_notes:
                for_notes.write("made\n")
                for_notes.flush()
            yield number if item is None else item * times
            number += 1
    finally:
        if for_notes:
            for_notes.write("closed\n")
            for_notes.close()
