"""Treats each row of its tensors by itself, in nested lists. Says how many rows it had in a call, by the file NOTES.

A first row that is -1 waits for the file UNTIL; one that is -2 fails the call, -3 loses a row, -4 prints, -5
takes very long.
"""

import os
import time


def predict(tensors):
    rows = tensors["x"]
    with open(os.environ["NOTES"], "a") as notes:
        notes.write("%d\n" % len(rows))
    kinds = [row[0] for row in rows]
    while -1 in kinds and not os.path.exists(os.environ["UNTIL"]):
        time.sleep(0.005)
    if -2 in kinds:
        raise ValueError("poisoned")
    if -5 in kinds:
        time.sleep(60)
    if -4 in kinds:
        print("hello")
    factor = tensors.parameters.get("factor", 1)
    result = {"sum": [sum(row) * factor for row in rows], "text": [["row", str(row[0])] for row in rows]}
    if -3 in kinds:
        result["sum"].pop()
    return result
