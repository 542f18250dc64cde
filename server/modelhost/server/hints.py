"""What to do next, for each reason that a deployment can fail with. An error may bring a more exact hint of its own."""

from modelhost.v1.error_reason_pb2 import ErrorReason

HINTS = {
    ErrorReason.ERROR_REASON_SOURCE_UNREACHABLE: "See `modelhost source test`; then `modelhost start`.",
    ErrorReason.ERROR_REASON_SOURCE_ACCESS_DENIED: "Check the credentials with `modelhost source test`.",
    ErrorReason.ERROR_REASON_PROJECT_NOT_FOUND: "Check the project's path and that the source may read it.",
    ErrorReason.ERROR_REASON_REF_NOT_FOUND: (
        "`modelhost source refs` lists branches and tags; `modelhost update --ref` takes another."
    ),
    ErrorReason.ERROR_REASON_PATH_NOT_FOUND: "`modelhost source files` lists what the commit holds.",
    ErrorReason.ERROR_REASON_PATH_REFUSED: "Mend the file in the repository, or deploy other paths.",
    ErrorReason.ERROR_REASON_SNAPSHOT_TOO_LARGE: (
        "Deploy fewer files with `--path`, or serve with a larger `--max-snapshot-bytes`."
    ),
    ErrorReason.ERROR_REASON_SOURCE_TOKEN_EXPIRED: "Give the data source a new token.",
    ErrorReason.ERROR_REASON_SOURCE_CERTIFICATE_INVALID: "Give the data source its authority's certificate (PEM).",
    ErrorReason.ERROR_REASON_SOURCE_UNAVAILABLE: "Try again in a while; `modelhost source test` says how it stands.",
    ErrorReason.ERROR_REASON_NAMESPACE_NOT_FOUND: "Check the namespace and that the token may see it.",
    ErrorReason.ERROR_REASON_RUNTIME_NOT_FOUND: (
        "Install the interpreter, or start the server with `--interpreter PATH`;"
        " `modelhost runtimes --refresh` looks again."
    ),
    ErrorReason.ERROR_REASON_RUNTIME_UNUSABLE: "`modelhost runtimes` says what is missing.",
    ErrorReason.ERROR_REASON_REQUIREMENTS_FAILED: ("The build log has the installer's whole output: `modelhost logs`."),
    ErrorReason.ERROR_REASON_ENVIRONMENT_FAILED: "The build log has the whole output: `modelhost logs`.",
    ErrorReason.ERROR_REASON_MODEL_CONFIG_INVALID: (
        "Mend modelhost.toml, commit, and `modelhost update` (or override it)."
    ),
    ErrorReason.ERROR_REASON_MAIN_FILE_NOT_FOUND: "Set the right one with `modelhost update --main-file`.",
    ErrorReason.ERROR_REASON_FUNCTION_NOT_FOUND: "Set the right one with `modelhost update --function`.",
    ErrorReason.ERROR_REASON_IMPORT_FAILED: (
        "The build log has the traceback: `modelhost logs`. A missing package belongs into the requirements."
    ),
    ErrorReason.ERROR_REASON_SYNTAX_ERROR: "Is the runtime the one that the file was written for?",
    ErrorReason.ERROR_REASON_SETUP_FAILED: "The build log has the traceback: `modelhost logs`.",
    ErrorReason.ERROR_REASON_LOAD_TIMED_OUT: "Raise `--load-timeout`, or make import and setup() do less.",
    ErrorReason.ERROR_REASON_WORKER_DIED_LOADING: (
        "`modelhost logs --run` has the worker's last output. A signal KILL often means that memory ran out."
    ),
    ErrorReason.ERROR_REASON_TEST_CALL_FAILED: "Mend the model, or the [test] table of modelhost.toml.",
    ErrorReason.ERROR_REASON_FUNCTION_MASKS_BASE: "Rename the function, as in `score <- function(parameters)`.",
    ErrorReason.ERROR_REASON_SECRET_UNREADABLE: "Set the secret again, or restore the state directory's secret.key.",
    ErrorReason.ERROR_REASON_REVISION_SUPERSEDED: "`modelhost rollback` runs it all the same.",
    ErrorReason.ERROR_REASON_INTERNAL: "This is a fault of ModelHost: its own log has the details.",
}


def hint_for(reason: "ErrorReason.ValueType") -> str:
    """What to do next about a reason; empty where its message says it all."""
    return HINTS.get(reason, "")
