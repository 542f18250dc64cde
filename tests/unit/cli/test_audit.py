"""Who changed what, as the command shows it."""

import json

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from modelhost.v1.audit_pb2 import AuditEvent
from tests.unit.client.fake_access import NOW


def event(number, before=None, after=None, **fields):
    fields = {"operator": "operators/ada", "method": "modelhost.v1.Admin/UpdateDeployment", **fields}
    return AuditEvent(
        name=f"auditEvents/{number}",
        time=Timestamp(seconds=NOW + number),
        resource=fields.pop("resource", "deployments/churn"),
        peer=fields.pop("peer", "ipv4:10.1.2.3:41234"),
        before_json=json.dumps(before) if before is not None else "",
        after_json=json.dumps(after) if after is not None else "",
        **fields,
    )


def test_a_change_is_one_line_with_the_values_before_and_after(server, cli):
    server.events = [
        event(1, {"workers": 1, "settings": {"limits": {}}}, {"workers": 2, "settings": {"limits": {"memory": "9"}}})
    ]
    assert cli("audit").out == (
        "2026-11-28 10:00:01  ada  UpdateDeployment  deployments/churn"
        "  settings.limits.memory nothing → 9, workers 1 → 2  from 10.1.2.3\n"
    )


def test_what_is_new_is_shown_with_its_values_and_what_is_gone_is_said(server, cli):
    account = {"name": "serviceAccounts/shop", "etag": "1", "description": "the checkout", "secretKeys": [{"id": "1"}]}
    server.events = [
        event(1, None, account, method="modelhost.v1.Admin/CreateServiceAccount", resource="serviceAccounts/shop"),
        event(2, account, None, method="modelhost.v1.Admin/DeleteServiceAccount", resource="serviceAccounts/shop"),
        event(3, {}, {}, method="modelhost.v1.Admin/RotateSecretKey", resource="", peer="ipv6:%5B::1%5D:41234"),
        event(4, {"x": 1}, {"x": 2}, peer="unix:"),
    ]
    lines = cli("audit").out.splitlines()
    assert lines[0].endswith('  description "the checkout", secretKeys 1 entry  from 10.1.2.3')
    assert lines[1].endswith("DeleteServiceAccount  serviceAccounts/shop  deleted  from 10.1.2.3")
    assert lines[2].endswith("RotateSecretKey  -  -  from ::1")
    assert lines[3].endswith("x 1 → 2  from unix:")


def test_a_long_value_is_cut(server, cli):
    server.events = [event(1, {"description": "a" * 100}, {"description": ["b" * 100]})]
    assert f'description {"a" * 37}... → ["{"b" * 35}...  from' in cli("audit").out


def test_what_cannot_be_read_is_left_out(server, cli):
    server.events = [event(1)]
    server.events[0].before_json = server.events[0].after_json = "{"
    assert cli("audit").out.endswith("  deployments/churn  -  from 10.1.2.3\n")


def test_what_an_operator_wrote_cannot_steer_the_terminal(server, cli):
    server.events = [event(1, {"description": "a"}, {"description": "\x1b[31mred"})]
    assert "\x1b" not in cli("audit").out


def test_the_newest_is_last_and_only_so_many_are_shown(server, cli):
    server.events = [event(number) for number in range(60)]
    result = cli("audit", "--json")
    assert [line["name"] for line in result.json_lines] == [f"auditEvents/{number}" for number in range(10, 60)]
    assert cli("audit").err == "note: the last 50; --last N prints more, --since TIME all from then on\n"
    last = cli("audit", "--last", "3")
    assert [line.split()[1] for line in last.out.splitlines()] == ["10:00:57", "10:00:58", "10:00:59"]
    assert last.err == ""
    assert len(cli("audit", "--last", "60").out.splitlines()) == 60


def test_no_more_is_asked_than_is_shown(server, cli):
    server.events = [event(number) for number in range(60)]
    cli("audit", "--last", "3")
    assert len(server.requests("ListAuditEvents")) == 2  # of two each


def test_since_a_time_all_are_shown(server, cli):
    server.events = [event(number) for number in range(60)]
    result = cli("audit", "--since", "2026-11-28", "--until", "2026-11-29T12:30", "--json")
    assert (len(result.json_lines), result.err) == (60, "")
    request = server.requests("ListAuditEvents")[0]
    assert request.start_time.ToJsonString() == "2026-11-28T00:00:00Z"
    assert request.end_time.ToJsonString() == "2026-11-29T12:30:00Z"


def test_the_server_looks_for_what_is_asked(server, cli):
    cli("audit", "--operator", "ada", "--method", "UpdateDeployment", "--resource", "deployments/churn")
    [request] = server.requests("ListAuditEvents")
    assert (request.operator, request.method, request.resource) == ("ada", "UpdateDeployment", "deployments/churn")
    assert not request.HasField("start_time")


@pytest.mark.parametrize("flag", ["--since", "--until"])
def test_a_time_that_is_none_is_refused(server, cli, flag):
    result = cli("audit", flag, "yesterday")
    assert (result.code, server.calls) == (2, [])
    assert f"error: {flag}: 'yesterday' is no time\nhint: write 2h, 7d, 2026-11-28" in result.err
