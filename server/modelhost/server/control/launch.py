"""From a revision and its environment to what starts a worker: command, environment variables, LOAD fields."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from modelhost.envs import Environment, Language
from modelhost.runtimes import PYTHON_WORKER, R_WORKER
from modelhost.server.resources import ModelSettings
from modelhost.server.serving.answers import Mask
from modelhost.server.serving.host import OnLines, WorkerSpec
from modelhost.server.serving.tensors import Signature

# Of the server's own environment only this reaches a model: how to get out, and whom to trust.
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PASSED_ON = (
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy", "TZ",
    *CERTIFICATES,
)  # fmt: skip
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


def worker_spec(
    settings: ModelSettings,
    environment: Environment,
    *,
    secrets: Mapping[str, str],
    mask: Mask,
    copy_files: Callable[[Path], None],
    on_lines: OnLines,
    message_limit: int,
) -> WorkerSpec:
    """Describe a revision's workers. `settings` are resolved; `copy_files` puts the model's files into a folder.

    `secrets` are set by the worker itself, so that they are in no list of processes; `mask` cuts them out of a text.
    """
    is_r = environment.interpreter.language is Language.R

    def prepare(directory: Path) -> Path:
        root = directory / "model"
        copy_files(root)
        return root

    return WorkerSpec(
        argv=_r_argv(environment) if is_r else _python_argv(environment),
        env={**_variables(environment), **(settings.env or {})},
        shared_env=_thread_limits,
        prepare=prepare,
        load={
            "main_file": settings.main_file,
            "function": settings.function,
            "working_dir": settings.working_dir,
            "import_paths": settings.import_paths,
            "text": settings.text,
            "unbox": settings.unbox,
            "tensors": settings.tensors or "lists",
            "outputs": settings.outputs or (),
            "env": dict(secrets),
        },
        mask=mask,
        on_lines=on_lines,
        load_timeout=settings.load_timeout or 0,
        call_timeout=settings.call_timeout or 0,
        message_limit=message_limit,
        memory=settings.memory or 0,
        recycle_calls=settings.recycle_calls or 0,
        recycle_memory=settings.recycle_memory or 0,
        batch_size=settings.max_batch_size or 1,
        batch_delay=settings.max_batch_delay or 0,
        batch_dimension=settings.batch_dimension or False,
        signature=Signature(settings.inputs or (), settings.outputs or ()),
        needs=(environment.path, environment.interpreter.path.parent.parent, *_certificates()),
    )


def _certificates() -> Iterator[Path]:
    """Where the variables that are passed on say that certificates are."""
    paths = (Path(os.environ[name]) for name in CERTIFICATES if os.environ.get(name))
    return (path for path in paths if path.is_absolute() and path.exists())


def _python_argv(environment: Environment) -> tuple[str, ...]:
    return (str(environment.python), "-u", "-s", str(PYTHON_WORKER))


def _r_argv(environment: Environment) -> tuple[str, ...]:
    # Through `R CMD`, which sets up the library path for exactly this R: with R_HOME alone the wrong libR is loaded.
    return (str(environment.interpreter.path), "CMD", sys.executable, "-I", "-u", str(R_WORKER))


def _thread_limits(workers: int) -> Mapping[str, str]:
    """As many threads as the host has cores for each of so many workers."""
    return dict.fromkeys(THREAD_LIMITS, str(max(1, (os.cpu_count() or 1) // workers)))


def _variables(environment: Environment) -> Mapping[str, str]:
    variables = {
        "PATH": f"{environment.path / 'bin'}:{SYSTEM_PATH}",
        "LANG": "C.UTF-8",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONUNBUFFERED": "1",
        "MPLBACKEND": "Agg",
        "TZ": "UTC",
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
    }
    if environment.interpreter.language is Language.R:
        variables |= {
            **environment.variables,
            "RPY2_CFFI_MODE": "ABI",
            "MODELHOST_R_LIBRARY": str(environment.library),
        }
    return variables
