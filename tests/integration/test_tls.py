"""TLS with real handshakes: who trusts whom, and certificates that are replaced while the server runs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from modelhost.client import AccessDenied, AsyncClient, Client, Unreachable
from modelhost.server.tls import TlsUnusable
from modelhost.v1.deployment_pb2 import ListDeploymentsRequest
from tests.running import RunningServer
from tests.tls_files import Tls, serial, serial_shown

Serve = Callable[..., RunningServer]


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(tmp_path / "tls")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a server with these settings."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(RunningServer(tmp_path / "state", **settings))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def encrypted(good: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with TLS."""
    with RunningServer(tmp_path_factory.mktemp("encrypted") / "state", transport=good.transport) as running:
        yield running


@pytest.fixture(scope="module")
def mutual(good: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that wants certificates of its clients."""
    with RunningServer(tmp_path_factory.mktemp("mutual") / "state", transport=good.mutual) as running:
        yield running


def answers(client: Client) -> bool:
    return not client.admin.ListDeployments(ListDeploymentsRequest()).deployments


def refusal(client: Client) -> Unreachable:
    with client, pytest.raises(Unreachable) as caught:
        answers(client)
    return caught.value


# -- whom the client trusts --------------------------------------------------------------------------------------------


def test_a_client_that_trusts_the_authority_is_answered(encrypted: RunningServer, good: Tls) -> None:
    port = encrypted.address.rpartition(":")[2]
    for address in (encrypted.address, f"https://{encrypted.address}", f"localhost:{port}"):
        with Client(address, encrypted.token, root_certificates=good.ca) as client:
            assert answers(client)


async def test_so_is_one_for_asyncio(mutual: RunningServer, good: Tls) -> None:
    certificate = good.client("alice")
    async with AsyncClient(
        mutual.address, mutual.token, root_certificates=good.ca, client_certificate=certificate
    ) as client:
        assert not (await client.admin.ListDeployments(ListDeploymentsRequest())).deployments


def test_a_client_without_tls_is_told_that_the_server_speaks_it(encrypted: RunningServer) -> None:
    error = refusal(encrypted.connect(encrypted.token))

    assert error.message == (
        f"the server at {encrypted.address} closed the connection at once, as one does that speaks TLS"
    )
    assert error.hint.startswith("for TLS begin the address with https://, and name the server's authority: --ca-file")


def test_a_client_that_trusts_others_is_told_to_name_the_authority(encrypted: RunningServer, tmp_path: Path) -> None:
    stranger = Tls(tmp_path / "stranger")
    for error in (
        refusal(encrypted.connect(None, root_certificates=stranger.ca)),
        refusal(Client(f"https://{encrypted.address}")),
    ):
        assert error.message.startswith(f"the certificate of the server at {encrypted.address} cannot be trusted: ")
        assert error.hint == "name the authority that signed it: --ca-file, or root_certificates"


def test_a_certificate_for_another_host_is_not_taken_unless_its_name_is_given(serve: Serve, tmp_path: Path) -> None:
    elsewhere = Tls(tmp_path / "elsewhere", "models.example.com")
    running = serve(transport=elsewhere.transport)

    error = refusal(running.connect(running.token, root_certificates=elsewhere.ca))
    with running.connect(running.token, root_certificates=elsewhere.ca, server_name="models.example.com") as client:
        assert answers(client)

    assert error.message == f"the certificate of the server at {running.address} is made out to other names"


def test_a_client_with_tls_is_told_that_the_server_speaks_none(server: RunningServer, good: Tls) -> None:
    error = refusal(server.connect(server.token, root_certificates=good.ca))

    assert error.message == f"the server at {server.address} speaks no TLS"


@pytest.mark.parametrize("which", ["roots", "client"])
def test_certificates_that_are_none_are_told_from_a_server_that_is_gone(
    encrypted: RunningServer, good: Tls, which: str
) -> None:
    junk = {"root_certificates": b"junk"}
    if which == "client":
        junk = {"root_certificates": good.ca, "client_certificate": (good.client("a")[0], good.client("b")[1])}

    error = refusal(encrypted.connect(encrypted.token, **junk))

    assert (
        error.message == f"no TLS with {encrypted.address}: the certificates given for it, or the key, cannot be used"
    )


# -- whom the server trusts --------------------------------------------------------------------------------------------


def test_a_client_with_a_certificate_of_the_authority_is_let_in_and_needs_its_token_all_the_same(
    mutual: RunningServer, good: Tls
) -> None:
    with mutual.connect(mutual.token, root_certificates=good.ca, client_certificate=good.client("alice")) as client:
        assert answers(client)
    stranger = mutual.connect("mha_wrong", root_certificates=good.ca, client_certificate=good.client("alice"))
    with stranger, pytest.raises(AccessDenied):
        answers(stranger)


def test_a_client_without_a_certificate_or_with_a_foreign_one_is_not(
    mutual: RunningServer, good: Tls, tmp_path: Path
) -> None:
    mallory = Tls(tmp_path / "mallory").client("alice")
    for options in ({}, {"client_certificate": mallory}):
        error = refusal(mutual.connect(mutual.token, root_certificates=good.ca, **options))
        assert error.message.startswith(
            f"the server at {mutual.address} ended the TLS handshake, as one does that wants"
        )
        assert error.hint.startswith("give one of its authority: --client-cert and --client-key")


# -- certificates that change ------------------------------------------------------------------------------------------


def test_a_new_pair_is_for_new_connections_and_the_old_ones_go_on(serve: Serve, tls: Tls) -> None:
    running = serve(transport=tls.transport)
    old_ca = tls.ca
    with running.connect(running.token, root_certificates=old_ca) as before:
        assert answers(before)

        tls.change_authority()
        pair = tls.rotate()

        assert serial_shown(running.address) == serial(pair.certificate)
        with running.connect(running.token, root_certificates=tls.ca) as after:
            assert answers(after)
        assert "cannot be trusted" in refusal(running.connect(running.token, root_certificates=old_ca)).message
        assert answers(before)  # which would not trust the new one: its connection is the one that it had


def test_as_long_as_certificate_and_key_do_not_fit_the_pair_from_before_is_shown(serve: Serve, tls: Tls) -> None:
    old = serial(tls.certificate.read_bytes())
    running = serve(transport=tls.transport)
    pair = tls.pair()

    tls.put(key=pair.key)
    assert [serial_shown(running.address) for _ in range(3)] == [old] * 3
    with running.connect(running.token, root_certificates=tls.ca) as client:
        assert answers(client)
    tls.put(certificate=pair.certificate)
    assert serial_shown(running.address) == serial(pair.certificate)


def test_both_listeners_show_the_new_pair(serve: Serve, tls: Tls) -> None:
    running = serve(transport=tls.transport, admin_listen="127.0.0.1:0")
    pair = tls.rotate()

    assert {serial_shown(address) for address in (running.address, running.admin_address)} == {serial(pair.certificate)}


def test_a_new_authority_for_clients_holds_for_new_connections(serve: Serve, tls: Tls) -> None:
    running = serve(transport=tls.mutual)
    alice = tls.client("alice")
    tls.change_authority()
    tls.rotate()

    with running.connect(running.token, root_certificates=tls.ca, client_certificate=tls.client("bob")) as client:
        assert answers(client)
    assert (
        "ended the TLS handshake"
        in refusal(running.connect(running.token, root_certificates=tls.ca, client_certificate=alice)).message
    )


# -- what is refused at the start --------------------------------------------------------------------------------------


def test_a_server_whose_files_do_not_fit_does_not_start_and_makes_no_state(tmp_path: Path, tls: Tls) -> None:
    tls.put(key=tls.pair().key)

    with pytest.raises(TlsUnusable, match=r"the key in .*server\.key is not that of the first certificate"):
        RunningServer(tmp_path / "state", transport=tls.transport).__enter__()

    assert not (tmp_path / "state").exists()
