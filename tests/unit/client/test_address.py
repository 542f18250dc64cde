import pytest

from modelhost.client.address import Address


@pytest.mark.parametrize(
    ("text", "address", "target"),
    [
        ("models.example.com", Address("models.example.com", 8470), "models.example.com:8470"),
        ("127.0.0.1:9000", Address("127.0.0.1", 9000), "127.0.0.1:9000"),
        ("[::1]:9000", Address("::1", 9000), "[::1]:9000"),
        ("http://localhost:9000", Address("localhost", 9000), "localhost:9000"),
        ("https://models.example.com:443/", Address("models.example.com", 443, tls=True), "models.example.com:443"),
    ],
)
def test_an_address_is_read(text, address, target):
    assert Address.parse(text) == address
    assert address.target == target


@pytest.mark.parametrize(
    "text", ["", ":8470", "host:port", "host:0", "host:70000", "ftp://host", "host/path", "a@host"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r"is no address"):
        Address.parse(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_loopback_is_known(host):
    assert Address.parse(host).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "localhost.example.com", "[2001:db8::1]"])
def test_other_hosts_are_not_loopback(host):
    assert not Address.parse(host).is_loopback
