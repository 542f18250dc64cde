"""Failures of a call to a model that runs."""

from modelhost.server.catalogue.entry import Entry, Step
from modelhost.v1.error_reason_pb2 import ErrorReason

CALLING = (
    Entry(
        ErrorReason.ERROR_REASON_MODEL_RAISED,
        Step.CALL,
        "The model raised an error",
        "Most often the parameters have another form than those that the model was written for: a column that is"
        " missing, text for a number, one row instead of a list of rows.",
        "`modelhost predict NAME JSON --debug` shows the traceback and what the model printed;"
        " `modelhost logs NAME --run` has it too.",
        "the model raised ValueError: X has 3 features per sample; expecting 4",
    ),
    Entry(
        ErrorReason.ERROR_REASON_PARAMETERS_INVALID,
        Step.CALL,
        "The parameters are refused",
        "They are not JSON (NaN is not), or the model itself refused them with an InvalidParameters error.",
        "Mend the parameters; the message is the model's own.",
        "the cars have no hp, gearbox",
    ),
    Entry(
        ErrorReason.ERROR_REASON_RESULT_NOT_SERIALISABLE,
        Step.CALL,
        "JSON cannot hold the result",
        "The model returns an object of its own, a set, bytes.",
        "Have the function return dicts, lists, numbers and text; `modelhost predict NAME JSON --debug` shows where.",
        "the result is a set, which JSON cannot hold",
    ),
    Entry(
        ErrorReason.ERROR_REASON_WORKER_DIED,
        Step.CALL,
        "The worker died during the call",
        "Compiled code crashed, the worker passed its memory limit, or the host's memory ran out (signal KILL).",
        "`modelhost logs NAME --run` has the worker's last output; a new worker is started by itself.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_MODEL_TIMED_OUT,
        Step.CALL,
        "The call took too long",
        "The model needs longer than `call_timeout` for these parameters, or hangs: waits for a network, a prompt.",
        "`modelhost update NAME --call-timeout 5m` gives it longer; `modelhost logs NAME --run` shows how far it came.",
        "the call took longer than the deployment's call_timeout of 60 s; its worker is replaced",
    ),
    Entry(
        ErrorReason.ERROR_REASON_QUEUE_FULL,
        Step.CALL,
        "Too many calls wait",
        "One worker has one call at a time, and the queue behind it is full.",
        "Try again in a moment, or have more calls wait: `modelhost update NAME --queue-size N`.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_RESULT_TOO_LARGE,
        Step.CALL,
        "The result passes the message limit",
        "The model returns more than one message may hold.",
        "Return less, `yield` it to callers of PredictStream,"
        " or raise `--max-message-bytes` of `modelhost serve` and of the command.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_CALLER_TOO_SLOW,
        Step.CALL,
        "The caller does not read its stream",
        "The caller of PredictStream has taken no item for `call_timeout`, and kept a worker from other calls.",
        "Read items as they come, and cancel a stream that is not read any more.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_TENSOR_INVALID,
        Step.CALL,
        "A tensor is not what it should be",
        "An Open Inference call brings a tensor that is malformed, or not as the model's `modelhost.toml` declares it.",
        "Ask ModelMetadata which tensors the model takes, and compare names, datatypes and shapes.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_SERVICE_NOT_RUNNING,
        Step.CALL,
        "The model does not run",
        "Its deployment was stopped or has failed.",
        "`modelhost show NAME` says why; `modelhost start NAME` starts it.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_SERVICE_NOT_FOUND,
        Step.CALL,
        "No such service",
        "The name is wrong, or the caller was not granted it: one cannot be told from the other.",
        "`modelhost list` shows what there is, and `modelhost grants` who may call it.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED,
        Step.CALL,
        "The caller did not wait",
        "The caller's own deadline passed while the model ran, or while the call waited for a worker.",
        "Call with a longer deadline, as `modelhost predict NAME JSON --timeout 60` does; `modelhost show NAME` says"
        " how many calls wait.",
        "the call's deadline passed while it waited for a worker",
    ),
)
