"""Asks an example's model directly, and compares the answer with the `[test]` table of its modelhost.toml.

    python examples/direct/run.py examples/iris-python27 <python of its environment>
    python examples/direct/run.py examples/mtcars-r R

Prints the answer as JSON; exit code 1 if it is not the expected one, or none.
"""

import csv
import io
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def run(model: Path, interpreter: str, parameters: Any) -> Any:
    """What the model in this folder answers when its own interpreter runs it, without a server.

    Raises subprocess.CalledProcessError, its `stderr` the model's, if the model fails.
    """
    if (model / "main.R").exists():
        command = [interpreter, "--vanilla", "-s", "-f", str(HERE / "run_r.R"), "--args", str(model)]
        return _records(_output(command, _csv(parameters)))
    return json.loads(_output([interpreter, str(HERE / "run_python.py"), str(model), json.dumps(parameters)]))


def _output(command: list[str], text: str = "") -> str:
    return subprocess.run(command, input=text, capture_output=True, encoding="utf-8", timeout=60, check=True).stdout


def _csv(records: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _records(text: str) -> list[dict[str, Any]]:
    # R quotes text and nothing else; what is not quoted is a number.
    return list(csv.DictReader(io.StringIO(text), quoting=csv.QUOTE_NONNUMERIC))


def main() -> None:
    model, interpreter = Path(sys.argv[1]), sys.argv[2]
    test = tomllib.loads((model / "modelhost.toml").read_text())["test"]
    try:
        answer = run(model, interpreter, test["parameters"])
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr)
    print(json.dumps(answer, indent=2, ensure_ascii=False))
    if answer != test["expected"]:
        sys.exit(f"expected {json.dumps(test['expected'], ensure_ascii=False)}")


if __name__ == "__main__":
    main()
