"""How an R worker gets in touch, keeps the link apart from the model, and ends."""

import os
import signal
import struct

import pytest

from tests.runtimes import r_fixtures
from tests.runtimes.link import LinkEnded, WorkerProcess
from tests.runtimes.r_fixtures import ECHO, r_command

start, model, serve = r_fixtures.start, r_fixtures.model, r_fixtures.serve


# ---- greeting


def test_a_worker_says_who_it_is(start):
    worker = start()
    assert worker.hello["protocol"] == 1
    assert worker.hello["token"] == worker.token
    assert worker.hello["pid"] == worker.process.pid
    assert worker.hello["language"] == "r"
    assert worker.hello["version"].count(".") == 2
    assert os.access(worker.hello["executable"], os.X_OK)


def test_a_worker_starts_without_a_word(start):
    worker = start()
    assert worker.stop() == 0
    assert (worker.stdout, worker.stderr) == ("", "")


def test_an_idle_worker_is_bearable(serve):
    worker = serve(ECHO)
    with open(f"/proc/{worker.process.pid}/status") as status:
        resident = int(next(line for line in status if line.startswith("VmRSS")).split()[1])
    assert resident < 100 * 1024


@pytest.mark.parametrize("address", ["", "fd:", "fd:77", "fd:x", "tcp:localhost:1", "3"])
def test_a_link_that_cannot_be_opened_ends_the_worker_with_71(address):
    worker = WorkerProcess(["env", f"MODELHOST_LINK={address}", *r_command()])
    with pytest.raises(LinkEnded, match="exit code 71; stderr: modelhost worker: no link"), worker:
        pass


def test_a_server_of_another_protocol_ends_the_worker_with_70(start):
    assert start(protocol=2).wait() == 70


def test_init_files_of_the_starting_folder_and_of_home_are_not_read(start, model, tmp_path):
    for name in (".Rprofile", ".Renviron"):
        (tmp_path / name).write_text("cat('init file')\nSEEN=yes\n")
    worker = start(cwd=tmp_path, env={"HOME": str(tmp_path)})
    worker.load(**model("seen <- Sys.getenv('SEEN')\nscore <- function(parameters) seen"))
    assert worker.call(None).value == [""]
    assert (worker.stdout, worker.stderr) == ("", "")


# ---- the model's surroundings


def test_the_model_does_not_see_how_the_link_was_opened(serve):
    worker = serve("score <- function(parameters) grep('MODELHOST|RPY2', names(Sys.getenv()), value = TRUE)")
    assert worker.call(None).value == []


def test_children_of_the_model_do_not_inherit_the_link(serve):
    worker = serve("score <- function(parameters) system2('ls', '/proc/self/fd', stdout = TRUE)")
    assert worker.call(None).value == ["0", "1", "2", "3"]  # the last is the listing's own


LIBRARIES = """
score <- function(parameters) {
    rscript <- file.path(R.home("bin"), "Rscript")
    child <- system2(rscript, c("--no-environ", "-e", shQuote("writeLines(.libPaths())")), stdout = TRUE)
    stopifnot(identical(child, .libPaths()))
    setdiff(.libPaths(), .Library)
}
"""


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_model_and_its_children_see_its_libraries_and_rs_own_and_no_other(serve, tmp_path, count):
    libraries = [tmp_path / f"library {i}" for i in range(count)]
    for library in libraries:
        library.mkdir()
    others = {"R_LIBS": "/usr/lib/R/site-library", "R_LIBS_USER": str(tmp_path), "R_LIBS_SITE": ""}
    worker = serve(LIBRARIES, env={"MODELHOST_R_LIBRARY": ":".join(map(str, libraries)), **others})
    assert worker.call(None).value == [str(library) for library in libraries]


def test_a_model_that_names_its_authors_library_keeps_its_own(serve, tmp_path):
    main = ".libPaths('C:/Users/me/R')\nscore <- function(parameters) .libPaths()[1]"
    worker = serve(main, env={"MODELHOST_R_LIBRARY": str(tmp_path)})
    assert worker.call(None).value == [str(tmp_path)]


def test_the_model_runs_in_its_root(serve, root):
    worker = serve({"main.R": "x <- readLines('x.txt')\nscore <- function(p) c(x, getwd())", "x.txt": "x\n"})
    assert worker.call(None).value == ["x", str(root)]


def test_the_model_runs_in_its_working_directory(serve, root):
    files = {"code/main.R": "source('helpers.R')\nscore <- function(p) help()", "code/helpers.R": "help <- getwd"}
    worker = serve(files, main_file="code/main.R", working_dir="code")
    assert worker.call(None).value == [str(root / "code")]


def test_a_script_finds_out_where_it_lies(serve, root):
    worker = serve(
        """
        sourced <- sys.frame(1)$ofile
        named <- sub("--file=", "", grep("^--file=", commandArgs(), value = TRUE))
        score <- function(parameters) c(sourced, named, commandArgs(trailingOnly = TRUE))
        """
    )
    assert worker.call(None).value == [str(root / "main.R")] * 2


def test_nobody_is_there_to_answer_questions(serve):
    questions = "interactive(), readline('Name? '), readLines(stdin()), readLines('stdin'), scan(quiet = TRUE)"
    worker = serve(f"score <- function(parameters) list({questions})")
    assert worker.call(None).value == [[False], [""], [], [], []]


def test_what_a_model_writes_goes_out_at_once_and_in_order(serve):
    worker = serve(
        """
        score <- function(parameters) {
            cat("one, no line end;")
            system("echo two from a child")
            print(3)
            writeLines("four")
            message("to stderr")
            warning("a warning")
            cat("Z\\u00fcrich", rawToChar(as.raw(c(255, 10))))
            writeLines(strrep("x", 1e6))
        }
        """
    )
    assert worker.call(None).value is None
    assert worker.stdout.startswith("one, no line end;two from a child\n[1] 3\nfour\nZürich \ufffd\nxxx")
    assert worker.stdout.count("x") == 1_000_000
    assert worker.stderr == "to stderr\nWarning in score(parameters) : a warning\n"


def test_a_forked_child_of_the_model_answers_to_the_model_only(serve):
    worker = serve(
        """
        score <- function(parameters) {
            unlist(parallel::mclapply(1:3, function(i) { cat("child", i, "\\n"); i * parameters }, mc.cores = 3))
        }
        """
    )
    assert worker.call(2).value == [2, 4, 6]
    assert worker.call(3).value == [3, 6, 9]
    assert "child 3" in worker.stdout


def test_a_forked_child_that_returns_from_the_function_does_not_answer(serve):
    worker = serve(
        """
        score <- function(parameters) {
            child <- parallel:::mcfork()
            if (inherits(child, "masterProcess")) return("from the child")
            parallel::mccollect(child, wait = TRUE)
            "from the parent"
        }
        """
    )
    assert worker.call(None).value == ["from the parent"]
    assert worker.ping().type == "pong"


def test_a_pipe_of_the_models_ends_quietly(serve):
    worker = serve("score <- function(p) system('yes | head -n 1', intern = TRUE)")
    assert worker.call(None).value == ["y"]
    assert worker.stderr == ""


# ---- frames


def test_large_frames_go_both_ways(serve):
    worker = serve(ECHO)
    body = b'["' + b"x" * (20 << 20) + b'"]'
    assert worker.call_raw(body).body == body


def test_frames_sent_at_once_are_answered_in_order(serve):
    worker = serve(ECHO)
    for number in range(100):
        worker.send({"type": "call", "id": number}, b"%d" % number)
        worker.send({"type": "ping", "since": "version 2"})
    for number in range(100):
        answer = worker.read()
        assert (answer["id"], answer.value) == (number, [number])
        assert worker.read().type == "pong"


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack("<IQ", 1 << 24, 0),
        struct.pack("<IQ", 2, 1 << 62) + b"{}",
        struct.pack("<IQ", 2, 0) + b"[]",
        struct.pack("<IQ", 2, 0) + b"\xff\xff",
    ],
    ids=["long header", "endless body", "no object", "no UTF-8"],
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


def test_a_worker_loads_once(serve, model):
    worker = serve(ECHO)
    with pytest.raises(LinkEnded, match="exit code 70"):
        worker.load(**model(ECHO))


def test_a_stream_that_ends_within_a_frame_ends_the_worker_with_70(start):
    worker = start()
    worker.link.sendall(struct.pack("<IQ", 100, 0) + b"{")
    assert worker.hang_up() == 70


# ---- the end


@pytest.mark.parametrize("ending", [WorkerProcess.stop, WorkerProcess.hang_up])
def test_the_end_leaves_nothing_behind(serve, tmp_path, ending):
    worker = serve("writeLines('x', tempfile())\n" + ECHO, env={"TMPDIR": str(tmp_path)})
    assert list(tmp_path.glob("Rtmp*"))
    assert ending(worker) == 0
    assert not list(tmp_path.glob("Rtmp*"))


def test_a_server_that_dies_during_a_call_ends_the_worker_after_it(serve):
    worker = serve("score <- function(parameters) strrep('x', parameters)")
    worker.send({"type": "call", "id": 1}, b"10000000")
    worker.link.close()
    assert worker.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_worker_as_it_ends_any_process(serve, number):
    worker = serve(ECHO)
    os.kill(worker.process.pid, number)
    assert worker.wait() == -number


def test_a_signal_ends_a_worker_in_the_midst_of_a_call(serve):
    worker = serve("score <- function(parameters) { cat('running'); repeat NULL }")
    worker.send({"type": "call", "id": 1}, b"1")
    worker.stdout_with("running")
    os.kill(worker.process.pid, signal.SIGTERM)
    assert worker.wait() == -signal.SIGTERM


def test_a_crash_in_c_code_leaves_rs_traceback_as_last_words(serve):
    worker = serve("score <- function(parameters) tools::pskill(Sys.getpid(), 11L)")
    with pytest.raises(LinkEnded, match="exit code -11"):
        worker.call(None)
    assert "caught segfault" in worker.stderr
    assert "score(parameters)" in worker.stderr
