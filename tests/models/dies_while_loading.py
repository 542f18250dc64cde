"""Dies while it is loaded, but for the first loads, as many as the file LOADS says; a call with "die" ends it."""
import os
import sys

number = 0
while True:  # each load takes a number of its own
    try:
        os.close(os.open("%s.%d" % (os.environ["LOADS"], number), os.O_CREAT | os.O_EXCL))
        break
    except OSError:
        number += 1
with open(os.environ["LOADS"]) as file:
    if number >= int(file.read()):
        sys.stderr.write("the last words of load %d\n" % number)
        sys.stderr.flush()
        os._exit(3)


def predict(parameters):
    if parameters == "die":
        os._exit(1)
    return parameters
