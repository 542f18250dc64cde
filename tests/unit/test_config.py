"""Settings of a server: what is safe to listen on, and what is not even an address."""

from pathlib import Path
from typing import Any

import pytest

from modelhost.server.config import DEFAULT_WORKER_UIDS, ServerSettings, default_state_dir
from modelhost.server.transport import Transport

TLS = Transport(tls_cert=Path("server.pem"), tls_key=Path("server.key"))
OTHERS = ["0.0.0.0:8470", "[::]:8470", "192.168.1.5:80", "models.example:8470", "*:8470"]


@pytest.mark.parametrize("listen", ["127.0.0.1:8470", "127.5.5.5:0", "localhost:1", "[::1]:8470", "127.0.0.1:65535"])
def test_a_loopback_address_may_be_listened_on(listen: str) -> None:
    ServerSettings(listen=listen).check()


@pytest.mark.parametrize("listen", OTHERS)
def test_any_other_address_must_be_asked_for_or_be_encrypted(listen: str) -> None:
    with pytest.raises(ValueError, match=r"is not a loopback address.*--tls-cert and --tls-key, or say --insecure"):
        ServerSettings(listen=listen).check()

    ServerSettings(listen=listen, insecure=True).check()
    ServerSettings(listen=listen, transport=TLS).check()


@pytest.mark.parametrize("address", OTHERS)
def test_the_address_for_operators_is_held_to_the_same(address: str) -> None:
    with pytest.raises(ValueError, match=r"is not a loopback address.*--tls-cert and --tls-key, or say --insecure"):
        ServerSettings(admin_listen=address).check()

    ServerSettings(admin_listen=address, insecure=True).check()
    ServerSettings(admin_listen=address, transport=TLS).check()
    ServerSettings(admin_listen="127.0.0.1:0").check()
    with pytest.raises(ValueError, match="--admin-listen must be host:port"):
        ServerSettings(admin_listen="8471", insecure=True).check()


def test_tls_is_no_reason_to_show_metrics_to_others_for_they_have_none() -> None:
    with pytest.raises(
        ValueError, match=r"metrics would travel unencrypted; listen on 127\.0\.0\.1, or say --insecure"
    ):
        ServerSettings(metrics="0.0.0.0:9470", transport=TLS).check()


@pytest.mark.parametrize(
    ("transport", "words"),
    [
        ({"tls_cert": Path("a")}, "--tls-cert and --tls-key go together"),
        ({"tls_key": Path("a")}, "--tls-cert and --tls-key go together"),
        ({"tls_client_ca": Path("a")}, "--tls-client-ca needs --tls-cert and --tls-key"),
        ({"keepalive": -1.0}, "--keepalive must be 0 or more seconds"),
        ({"keepalive": 1e9}, "--keepalive must be 0 or more seconds and at most 2147483, not 1e[+]09"),
        ({"keepalive": float("nan")}, "--keepalive must be 0 or more seconds"),
        ({"keepalive_timeout": 0.0}, "--keepalive-timeout must be more than 0 seconds"),
        ({"max_connection_age": 0.0}, "--max-connection-age must be more than 0 seconds"),
        ({"max_connection_age_grace": -1.0}, "--max-connection-age-grace must be 0 or more seconds"),
    ],
)
def test_a_transport_that_makes_no_sense_is_refused(transport: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ServerSettings(transport=Transport(**transport)).check()


def test_connections_are_kept_and_dead_peers_are_noticed_by_default_and_neither_has_to_be() -> None:
    default = Transport()
    assert 0 < default.keepalive <= 240  # load balancers forget connections that are silent for longer
    assert default.keepalive_timeout > 0
    assert default.max_connection_age is None
    ServerSettings(transport=Transport(keepalive=0.0, max_connection_age=3600.0, max_connection_age_grace=0.0)).check()


def test_metrics_may_be_read_at_an_address_by_the_same_rule_and_by_default_at_none() -> None:
    assert ServerSettings().metrics == ""
    ServerSettings(metrics="127.0.0.1:0").check()
    ServerSettings(metrics="0.0.0.0:9470", insecure=True).check()
    with pytest.raises(ValueError, match=r"0\.0\.0\.0 is not a loopback address, and metrics .*--insecure"):
        ServerSettings(metrics="0.0.0.0:9470").check()
    with pytest.raises(ValueError, match="--metrics must be host:port"):
        ServerSettings(metrics="9470", insecure=True).check()


@pytest.mark.parametrize("listen", ["", "8470", ":8470", "127.0.0.1", "127.0.0.1:", "127.0.0.1:grpc", "127.0.0.1:-1"])
@pytest.mark.parametrize("insecure", [True, False])
def test_what_is_no_address_is_refused(listen: str, insecure: bool) -> None:
    with pytest.raises(ValueError, match="--listen must be host:port"):
        ServerSettings(listen=listen, insecure=insecure).check()


def test_a_message_limit_under_which_nothing_works_is_refused() -> None:
    ServerSettings(message_limit=1024).check()
    with pytest.raises(ValueError, match="message limit"):
        ServerSettings(message_limit=1023).check()


def test_the_state_lies_where_xdg_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert default_state_dir() == Path("/somewhere/modelhost")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert default_state_dir() == Path("/home/ada/.local/state/modelhost")


# Of shadow-utils' login.defs and of systemd.io/UIDS-GIDS.
GIVEN_AWAY = [
    range(65_536),  # the system's, people, systemd-homed, DynamicUser
    range(100_000, 600_100_001),  # SUB_UID_MIN to SUB_UID_MAX: rootless containers
    range(524_288, 1_879_048_192),  # systemd-nspawn
    range(2_147_352_576, 2_147_418_112),  # foreign
    range(2**31 - 1, 2**32),
]


@pytest.mark.parametrize("others", GIVEN_AWAY)
def test_users_of_workers_are_by_default_none_that_the_system_gives_away(others: range) -> None:
    assert DEFAULT_WORKER_UIDS[-1] < others[0] or others[-1] < DEFAULT_WORKER_UIDS[0]
    assert len(DEFAULT_WORKER_UIDS) == 65_536


def test_hosts_of_data_sources_are_checked_before_anything_starts() -> None:
    assert ServerSettings().git_hosts == ()
    ServerSettings(git_hosts=("gitlab.example.com", "*.example.com:8443", "10.0.0.0/8", "::1", "file", "*")).check()
    with pytest.raises(ValueError, match=r"--git-host must be .* not 'https://gitlab.example.com/': is gitlab.example"):
        ServerSettings(git_hosts=("localhost", "https://gitlab.example.com/")).check()
