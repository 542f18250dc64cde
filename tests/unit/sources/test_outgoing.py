"""Which hosts the server goes to, and at which addresses."""

import socket

import pytest

from modelhost.server.errors import Conflict, reason_name
from modelhost.server.sources.outgoing import Outgoing, canonical_host, literal, parse_entry

LOOPBACK, PRIVATE, PUBLIC = "127.0.0.1", "10.1.2.3", "192.0.2.7"


def knowing(*hosts: str, **names: list[str]) -> Outgoing:
    """A list, and names with their addresses; `_` stands for a dot."""
    known = {name.replace("_", "."): addresses for name, addresses in names.items()}

    def resolve(host: str, port: int) -> list[str]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return known[host]

    return Outgoing(hosts, resolve)


def refusal(outgoing: Outgoing, host: str, port: int = 443) -> Conflict:
    with pytest.raises(Conflict) as refused:
        outgoing.addresses(host, port)
    assert reason_name(refused.value.reason) == "HOST_NOT_ALLOWED"
    return refused.value


class TestWithoutAList:
    @pytest.mark.parametrize("address", [PRIVATE, PUBLIC, "172.16.0.1", "192.168.0.1", "fd00::1", "2001:db8::1"])
    def test_private_and_public_addresses_are_gone_to(self, address: str) -> None:
        assert knowing(a_example=[address]).addresses("a.example", 443) == [address]
        assert knowing().addresses(address, 443) == [address]

    @pytest.mark.parametrize(
        ("address", "kind"),
        [
            *(("127.0.0.1", "loopback"), ("127.8.9.1", "loopback"), ("::1", "loopback")),
            *(("0.0.0.0", "no host"), ("0.0.0.1", "no host"), ("::", "no host"), ("255.255.255.255", "no host")),
            *(("169.254.169.254", "link-local"), ("169.254.0.1", "link-local"), ("fe80::1", "link-local")),
            *(("224.0.0.1", "multicast"), ("ff02::1", "multicast")),
            *(("fd00:ec2::254", "metadata"), ("fd20:ce::254", "metadata"), ("100.100.100.200", "metadata")),
            *(("168.63.129.16", "metadata"), ("192.0.0.192", "metadata")),
            *(("::ffff:127.0.0.1", "loopback"), ("::127.0.0.1", "loopback"), ("::ffff:0:127.0.0.1", "loopback")),
            *(("64:ff9b::127.0.0.1", "loopback"), ("64:ff9b::a9fe:a9fe", "link-local")),
            *(("64:ff9b:1::127.0.0.1", "loopback"), ("64:ff9b:1:7f00:0:100::", "loopback")),
            *(("64:ff9b:1:ffa9:fe:a9fe::", "link-local"), ("64:ff9b:1:0:a9:fea9:fe00:0", "link-local")),
            *(("2002:7f00:1::", "loopback"), ("2002:a9fe:a9fe::1", "link-local")),
            ("2001:0:c000:207:0:0:80ff:fffe", "loopback"),  # Teredo
        ],
    )
    def test_others_are_not_whether_a_name_has_them_or_the_url(self, address: str, kind: str) -> None:
        by_name = refusal(knowing(a_example=[PUBLIC, address]), "a.example")
        assert by_name.message.startswith("a.example is at ")
        assert kind in by_name.message
        with pytest.raises(Conflict, match=kind):
            knowing().check_host(address, 443)

    @pytest.mark.parametrize("address", ["64:ff9b::8.8.8.8", "64:ff9b:1::8.8.8.8", "2002:808:808::1"])
    def test_an_embedded_address_that_is_gone_to_is_no_obstacle(self, address: str) -> None:
        assert knowing().addresses(address, 443)

    @pytest.mark.parametrize(
        "host", ["2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1.", "[::ffff:127.0.0.1]", "0"]
    )
    def test_no_spelling_of_an_address_gets_by(self, host: str) -> None:
        with pytest.raises(Conflict):
            knowing().check_host(host, 80)

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "a.localhost"])
    def test_localhost_needs_no_looking_up_to_be_refused(self, host: str) -> None:
        with pytest.raises(Conflict, match="loopback"):
            knowing().check_host(host, 80)

    def test_a_name_without_an_address_is_no_refusal(self) -> None:
        with pytest.raises(socket.gaierror):
            knowing().addresses("a.example", 443)
        with pytest.raises(socket.gaierror):
            Outgoing().addresses(f"{'a' * 64}.example", 443)

    def test_folders_may_be_read(self) -> None:
        knowing().check_folder("/srv/models")

    def test_the_refusal_says_what_would_allow_it_and_keep_the_rest(self) -> None:
        refused = refusal(knowing(a_example=[LOOPBACK]), "a.example", 8080)
        assert refused.message == (
            "a.example is at 127.0.0.1, a loopback address, which this server goes to only if it is listed (port 8080)"
        )
        assert "`modelhost serve --git-host 127.0.0.1 --git-host '*'`" in refused.hint
        assert (refused.values["host"], refused.values["address"]) == ("a.example", LOOPBACK)
        assert knowing(LOOPBACK, "*", a_example=[LOOPBACK], b_example=[PUBLIC]).addresses("a.example", 8080)


class TestWithAList:
    @pytest.mark.parametrize(
        ("entry", "host", "port"),
        [
            *(("a.example", "a.example", 443), ("A.Example", "a.example.", 1), ("a.example:443", "A.EXAMPLE", 443)),
            *(("*.example", "a.example", 443), ("*.example", "b.a.example", 443), ("*.example:80", "a.example", 80)),
            *(("10.0.0.0/8", "a.example", 443), ("10.1.2.3", "a.example", 443), ("10.1.2.3:443", "a.example", 443)),
            *(("::ffff:10.0.0.0/104", "a.example", 1), ("*", "a.example", 443), ("*:443", "a.example", 443)),
        ],
    )
    def test_a_host_is_allowed_by_its_name_or_its_addresses(self, entry: str, host: str, port: int) -> None:
        outgoing = knowing(entry, a_example=[PRIVATE], b_a_example=[PRIVATE])
        outgoing.check_host(host, port)
        assert outgoing.addresses(host, port) == [PRIVATE]

    @pytest.mark.parametrize(
        ("entry", "host", "port"),
        [
            *(("b.example", "a.example", 443), ("a.example:443", "a.example", 80), ("*.example:80", "a.example", 443)),
            *(("*.a.example", "a.example", 443), ("*.ample", "a.example", 443), ("example", "a.example", 443)),
            *(("a.example", PRIVATE, 443), ("*:80", "a.example", 443), ("file", "a.example", 443)),
            ("file", "file", 443),
            *(("10.1.2.4", PRIVATE, 443), ("10.0.0.0/8:80", PRIVATE, 443), ("10.0.0.0/8:80", "a.example", 443)),
        ],
    )
    def test_others_are_refused_before_anything_is_looked_up(self, entry: str, host: str, port: int) -> None:
        def resolve(host: str, port: int) -> list[str]:
            raise AssertionError("looked up")

        outgoing = Outgoing([entry], resolve)
        with pytest.raises(Conflict, match=r"is not among the hosts that models may come from") as refused:
            outgoing.check_host(host, port)
        assert f"--git-host {host}`" in refused.value.hint
        assert refusal(outgoing, host, port).message == refused.value.message

    def test_where_networks_are_listed_every_address_of_a_name_has_to_be_in_them(self) -> None:
        outgoing = knowing("10.0.0.0/8", a_example=[PRIVATE, PUBLIC])
        outgoing.check_host("a.example", 443)
        assert refusal(outgoing, "a.example").message.endswith(f", nor is its address {PUBLIC}")

    @pytest.mark.parametrize("entry", ["a.example", "*.example", "*"])
    def test_a_listed_name_does_not_list_the_loopback_it_leads_to(self, entry: str) -> None:
        for address in (LOOPBACK, "::1", "169.254.169.254"):
            assert address in refusal(knowing(entry, a_example=[PUBLIC, address]), "a.example").message

    @pytest.mark.parametrize("entry", [LOOPBACK, "127.0.0.0/8", "localhost", "0.0.0.0/0", "127.0.0.1:443"])
    def test_an_address_that_is_listed_is_gone_to(self, entry: str) -> None:
        assert knowing(entry).addresses("127.1", 443) == [LOOPBACK]
        assert knowing("a.example", entry, a_example=[LOOPBACK]).addresses("a.example", 443) == [LOOPBACK]
        assert knowing(entry, localhost=[LOOPBACK]).addresses("localhost", 443) == [LOOPBACK]

    def test_an_address_is_listed_at_its_port_only(self) -> None:
        outgoing = knowing("a.example", "localhost:8080", a_example=[LOOPBACK], localhost=["::1"])
        assert outgoing.addresses("a.example", 8080) == [LOOPBACK]
        assert outgoing.addresses("localhost", 8080) == ["::1"]
        for host in ("a.example", "localhost", "[::1]"):
            assert refusal(outgoing, host, 8081)

    def test_folders_have_an_entry_of_their_own(self) -> None:
        for entry in ("file", "FILE", "*"):
            knowing("a.example", entry).check_folder("/srv/models")
        for entry in ("a.example", "localhost", "*:443"):
            with pytest.raises(Conflict, match="/srv/models is on the server's own host") as refused:
                knowing(entry).check_folder("/srv/models")
            assert "--git-host file" in refused.value.hint


class TestBehindAProxy:
    def test_what_only_the_proxy_can_look_up_has_to_be_allowed_by_name(self) -> None:
        knowing().check_behind_proxy("a.example", 443)
        knowing("a.example").check_behind_proxy("a.example", 443)
        for entry in ("b.example", "10.0.0.0/8"):
            with pytest.raises(Conflict, match="not among"):
                knowing(entry).check_behind_proxy("a.example", 443)

    def test_an_address_that_is_known_here_counts(self) -> None:
        with pytest.raises(Conflict, match="loopback"):
            knowing(a_example=[LOOPBACK]).check_behind_proxy("a.example", 443)
        with pytest.raises(Conflict, match="link-local"):
            knowing().check_behind_proxy("169.254.169.254", 80)


class TestEntries:
    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            *(("", ""), ("a b", ""), ("a,b", ""), ("ada@a.example", ""), ("-a", ""), ("a/b", ""), ("*a.example", "")),
            *(("*.", ""), ("a.*", ""), ("a..b", ""), ("file:80", ""), ("*.0.0.1", ""), ("[::1", ""), ("[::1]x", "")),
            *(("a.example:0", "port"), ("a.example:65536", "port"), ("a.example:", ""), ("a.example:x", "port")),
            *(("https://a.example/x", "a.example meant"), ("127.1", "127.0.0.1 meant"), ("0x7f000001", "127.0.0.1")),
            *(("10.0.0.5/8", "10.0.0.0/8 meant"), ("10.0.0.0/33", "")),
        ],
    )
    def test_what_is_none_is_refused_with_what_it_may_be(self, text: str, hint: str) -> None:
        with pytest.raises(ValueError, match=r"--git-host must be a host name") as refused:
            parse_entry(text)
        assert repr(text) in str(refused.value)
        assert hint in str(refused.value)

    @pytest.mark.parametrize(
        ("text", "port"),
        [
            *(("gitlab-1.example_x.com", 0), ("gitlab1", 0), ("10.0.0.0/8:8443", 8443), ("[fd00::/8]:443", 443)),
            *(("::1", 0), ("[::1]", 0), ("[::1]:65535", 65535), ("*:1", 1), ("localhost:80", 80)),
        ],
    )
    def test_what_is_one_has_its_port(self, text: str, port: int) -> None:
        assert parse_entry(text).port == port


def test_hosts_have_one_form() -> None:
    assert [canonical_host(host) for host in ("A.Example.", "0x7f.1", "[::FFFF:10.0.0.1]", "[2001:DB8:0::1]")] == [
        "a.example", "127.0.0.1", "10.0.0.1", "2001:db8::1",
    ]  # fmt: skip
    assert literal("a.example") is None
    assert literal("") is None
