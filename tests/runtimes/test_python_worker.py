"""How a Python worker gets in touch, keeps the link apart from the model, and ends."""

import os
import signal
import struct

import pytest

from modelhost.runtimes import PYTHON_WORKER
from tests.runtimes.link import LinkEnded, WorkerProcess

ECHO = "def predict(parameters):\n    return parameters\n"


# ---- greeting


def test_a_worker_says_who_it_is(start, interpreter):
    worker = start()
    assert worker.hello["protocol"] == 1
    assert worker.hello["token"] == worker.token
    assert worker.hello["pid"] == worker.process.pid
    assert worker.hello["language"] == "python"
    assert worker.hello["version"].startswith(interpreter.version + ".")
    assert worker.hello["executable"] == str(interpreter.path)


def test_an_idle_worker_is_light(serve, interpreter):
    worker = serve(ECHO)
    with open(f"/proc/{worker.process.pid}/status") as status:
        resident = int(next(line for line in status if line.startswith("VmRSS")).split()[1])
    assert resident < {"2.7": 14, "3.6": 14, "3.13": 20}[interpreter.version] * 1024


@pytest.mark.parametrize("address", ["", "fd:", "fd:77", "fd:x", "tcp:localhost:1", "3"])
def test_a_link_that_cannot_be_opened_ends_the_worker_with_71(interpreter, address):
    worker = WorkerProcess(["env", f"MODELHOST_LINK={address}", interpreter.path, PYTHON_WORKER])
    with pytest.raises(LinkEnded, match="exit code 71; stderr: modelhost worker: no link"), worker:
        pass


def test_a_server_of_another_protocol_ends_the_worker_with_70(interpreter):
    with WorkerProcess([interpreter.path, PYTHON_WORKER], protocol=2) as worker:
        assert worker.wait() == 70


# ---- the link and the model


def test_the_model_does_not_see_how_the_link_was_opened(serve):
    worker = serve(
        """
import os
seen = [name for name in os.environ if "MODELHOST" in name]
def predict(parameters):
    return seen
"""
    )
    assert worker.call(None).value == []


def test_children_of_the_model_do_not_inherit_the_link(serve):
    worker = serve(
        """
import subprocess
def predict(parameters):
    return subprocess.check_output(["ls", "/proc/self/fd"], close_fds=False).decode().split()
"""
    )
    assert worker.call(None).value == ["0", "1", "2", "3"]  # the last is the listing's own


def test_the_link_is_out_of_the_way_of_low_descriptors(serve):
    worker = serve(
        """
import os
def predict(parameters):
    os.closerange(0, 64)
    return "still here"
"""
    )
    assert worker.call(None).value == "still here"
    assert worker.call(None).value == "still here"
    assert worker.stop() == 0


def test_what_the_model_prints_stays_off_the_link(serve):
    worker = serve(
        """
import os, sys
def predict(parameters):
    print("x" * 1000000)
    sys.stderr.write("to stderr")
    os.write(1, b"straight to the descriptor")
    os.system("echo from a child")
    return parameters
"""
    )
    assert worker.call("ok").value == "ok"
    assert "x" * 1000000 in worker.stdout
    assert "straight to the descriptor" in worker.stdout
    assert "from a child" in worker.stdout
    assert worker.stderr == "to stderr"  # though no line ends there


@pytest.mark.parametrize(
    "statement", ["sys.stdout = None", "del sys.stdout", "sys.stdout = object()", "sys.stdout.close()"]
)
def test_a_model_may_do_with_its_stdout_what_it_likes(serve, statement):
    worker = serve(f"import sys\n{statement}\n{ECHO}")
    assert worker.call(1).value == 1
    assert worker.stop() == 0


def test_a_forked_child_that_returns_from_the_function_does_not_answer(serve):
    worker = serve(
        """
import os
def predict(parameters):
    child = os.fork()
    if child == 0:
        return "from the child"
    return os.waitpid(child, 0)[1] >> 8
"""
    )
    assert worker.call(None).value == 70
    assert worker.ping().type == "pong"


def test_a_model_that_closes_the_link_all_the_same_ends_its_worker_with_70(serve):
    worker = serve("import os\ndef predict(parameters):\n    os.closerange(3, 1000)\n")
    with pytest.raises(LinkEnded, match="exit code 70; stderr: modelhost worker: the link is lost"):
        worker.call(None)


def test_a_model_may_use_a_pool_of_processes(serve):
    worker = serve(
        """
import multiprocessing
def square(x):
    return x * x
def predict(parameters):
    pool = multiprocessing.Pool(2)
    try:
        return pool.map(square, parameters)
    finally:
        pool.terminate()
        pool.join()
"""
    )
    assert worker.call([1, 2, 3]).value == [1, 4, 9]
    assert worker.stop() == 0


def test_threads_of_the_model_do_not_disturb_its_calls(serve):
    worker = serve(
        """
import sys, threading
def chatter():
    while True:
        sys.stdout.write("chatter ")
thread = threading.Thread(target=chatter)
thread.daemon = True
thread.start()
def predict(parameters):
    return parameters
"""
    )
    for number in range(20):
        assert worker.call(number).value == number
    assert worker.hang_up() == 0


def test_a_signal_that_the_model_handles_does_not_tear_a_frame(serve):
    worker = serve(
        """
import signal
ticks = []
signal.signal(signal.SIGALRM, lambda *_: ticks.append(None))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
def predict(parameters):
    return len(ticks), parameters
"""
    )
    text = "x" * (8 << 20)
    for _ in range(3):
        ticks, echoed = worker.call(text).value
        assert echoed == text
    assert ticks > 0


def test_a_signal_that_the_model_handles_does_not_tear_tensors(serve):
    worker = serve(
        """
import signal
ticks = []
signal.signal(signal.SIGALRM, lambda *_: ticks.append(None))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
def predict(tensors):
    return {"ticks": len(ticks), "x": tensors["x"]}
"""
    )
    elements = struct.pack("<I", 8 << 20) + b"x" * (8 << 20)
    for _ in range(3):
        found = {name: data for name, _, _, data in worker.infer(("x", "BYTES", [1], elements)).tensors}
        assert found["x"] == elements
    assert struct.unpack("<q", found["ticks"])[0] > 0


def test_a_model_that_ends_the_process_in_a_call_leaves_its_exit_code(serve):
    worker = serve("import os\ndef predict(parameters):\n    os._exit(parameters)\n")
    with pytest.raises(LinkEnded, match="exit code 7"):
        worker.call(7)


# ---- frames


def test_large_frames_go_both_ways(serve):
    worker = serve(ECHO)
    body = b'"' + b"x" * (65 << 20) + b'"'
    assert worker.call_raw(body).body == body


def test_frames_sent_at_once_are_answered_in_order(serve):
    worker = serve(ECHO)
    for number in range(100):
        worker.send({"type": "call", "id": number}, b"%d" % number)
        worker.send({"type": "ping"})
    for number in range(100):
        answer = worker.read()
        assert (answer["id"], answer.value) == (number, number)
        assert worker.read().type == "pong"


def test_unknown_header_fields_are_ignored(start):
    worker = start()
    worker.send({"type": "ping", "since": "version 2"})
    assert worker.read().type == "pong"


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack("<IQ", 1 << 24, 0),
        struct.pack("<IQ", 2, 1 << 62) + b"{}",
        struct.pack("<IQ", 14, 1 << 62) + b'{"tensors":[]}',
        struct.pack("<IQ", 2, 0) + b"[]",
        struct.pack("<IQ", 1, 0) + b"{",
        struct.pack("<IQ", 2, 0) + b"\xff\xff",
        struct.pack("<IQ", 16, 0) + b'{"type": "dance"',
    ],
    ids=["long header", "endless body", "endless tensors", "no object", "cut", "no UTF-8", "no JSON"],
)
def test_a_broken_frame_ends_the_worker_with_70(start, frame):
    worker = start()
    worker.link.sendall(frame)
    assert worker.wait() == 70
    assert worker.stderr.startswith("modelhost worker: ")


@pytest.mark.parametrize("kind", ["dance", "call", "welcome", None])
def test_a_message_out_of_place_ends_the_worker_with_70(start, kind):
    worker = start()
    worker.send({"type": kind, "id": 1}, b"1")
    assert worker.wait() == 70


def test_a_worker_loads_once(serve, root):
    worker = serve(ECHO)
    with pytest.raises(LinkEnded, match="exit code 70"):
        worker.load(root=root)


def test_a_stream_that_ends_within_a_frame_ends_the_worker_with_70(start):
    worker = start()
    worker.link.sendall(struct.pack("<IQ", 100, 0) + b"{")
    assert worker.hang_up() == 70


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_a_stream_that_ends_within_tensors_ends_the_worker_with_70(serve, size):
    worker = serve(ECHO)
    worker.link.sendall(struct.pack("<IQ", 29, 2 << 20) + b'{"type":"call", "tensors":[]}' + bytes(size))
    assert worker.hang_up() == 70


def test_a_header_may_have_space_around_it(start):
    worker = start()
    worker.link.sendall(struct.pack("<IQ", 19, 0) + b' {"type": "ping"}\n ')
    assert worker.read().type == "pong"


# ---- the end

THREAD = f"""
import atexit, threading, time
def forever():
    while True:
        time.sleep(0.01)
threading.Thread(target=forever).start()
atexit.register(forever)
{ECHO}
"""


def test_the_end_of_the_stream_ends_the_worker_whatever_its_threads_do(serve):
    assert serve(THREAD).hang_up() == 0


def test_stop_ends_the_worker_whatever_its_threads_do(serve):
    assert serve(THREAD).stop() == 0


def test_a_server_that_dies_during_a_call_ends_the_worker_after_it(serve):
    worker = serve("def predict(parameters):\n    return 'x' * parameters\n")
    worker.send({"type": "call", "id": 1}, b"100000000")
    worker.link.close()
    assert worker.wait() == 0


def test_a_signal_ends_a_worker_as_it_ends_any_process(serve):
    worker = serve(ECHO)
    os.kill(worker.process.pid, signal.SIGTERM)
    assert worker.wait() == -signal.SIGTERM
