import io
import json

import pytest

from modelhost.cli.errors import CommandError
from modelhost.cli.predict import check_json


def test_the_result_is_printed_as_the_server_sent_it(server, cli):
    server.model = lambda parameters: '{"score":0.10000000000000001,"id":1152921504606846977}'
    result = cli("predict", "churn", '{"age": 41}')
    assert (result.code, result.err) == (0, "")
    assert result.out == '{"score":0.10000000000000001,"id":1152921504606846977}\n'


def test_the_parameters_are_sent_as_they_were_written(server, cli):
    cli("predict", "churn", '{"id": 1152921504606846977, "rate": 0.10}')
    [request] = server.requests("Predict")
    assert (request.service, request.parameters_json) == ("churn", '{"id": 1152921504606846977, "rate": 0.10}')


def test_with_json_the_revision_and_the_name_of_the_call_come_along(server, cli):
    server.model = lambda parameters: "[1,2]"
    document = cli("predict", "churn", "1", "--json").document
    assert document == {"result": [1, 2], "revision": 3, "request_id": ""}


def test_the_parameters_may_be_in_a_file(server, cli, tmp_path):
    (tmp_path / "customer.json").write_text('{"name": "Zoë"}', encoding="utf-8")
    cli("predict", "churn", f"@{tmp_path / 'customer.json'}")
    assert server.requests("Predict")[0].parameters_json == '{"name": "Zoë"}'


def test_the_parameters_may_come_from_stdin(server, cli, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("[1, 2]\n"))
    cli("predict", "churn", "-")
    assert json.loads(server.requests("Predict")[0].parameters_json) == [1, 2]


def test_wrong_json_shows_the_place_and_is_not_sent(server, cli):
    result = cli("predict", "churn", '{"age": 41,}')
    assert result.code == 2
    lines = result.err.splitlines()
    assert lines[0].startswith("error: the parameters are not JSON: ")
    assert "at line 1, column" in lines[0]
    assert lines[1] == '  {"age": 41,}'
    assert lines[2].endswith("^")
    assert server.requests("Predict") == []


def test_the_place_is_shown_in_long_and_in_many_lines():
    with pytest.raises(CommandError) as caught:
        check_json('{\n  "a": "' + "x" * 200 + '" 1\n}', "the parameters")
    shown, mark = caught.value.details
    assert "at line 2" in caught.value.message
    assert shown[len(mark) - 1] == "1"


@pytest.mark.parametrize("text", ["", "   ", "NaN", '{"a": Infinity}'])
def test_what_only_python_takes_for_json_is_wrong(cli, text):
    result = cli("predict", "churn", text)
    assert result.code == 2
    assert "the parameters are not JSON" in result.err


def test_a_file_name_without_the_at_sign_is_noticed(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "customer.json").write_text("{}")
    assert "hint: to send what is in the file: @customer.json" in cli("predict", "churn", "customer.json").err


def test_a_file_that_cannot_be_read_is_said(cli, tmp_path):
    (tmp_path / "latin.json").write_bytes(b'"\xe9"')
    assert "cannot read /nope: No such file" in cli("predict", "churn", "@/nope").err
    assert "is not UTF-8: byte 1 is 0xe9" in cli("predict", "churn", f"@{tmp_path / 'latin.json'}").err


def test_without_parameters_the_models_own_example_is_offered(cli):
    result = cli("predict", "churn")
    assert result.code == 2
    assert "hint: modelhost predict churn '{\"age\": 41}'" in result.err


def test_a_call_waits_as_long_as_the_model_may_run_unless_told_otherwise(server, cli):
    cli("predict", "churn", "1")
    assert server.deadline > 24 * 3600
    cli("predict", "churn", "1", "--timeout", "1000")
    assert server.deadline == pytest.approx(1000, abs=500)
