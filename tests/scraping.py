"""Reads a server's metrics as Prometheus does, with prometheus_client's own parser."""

import http.client

from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that have those labels; 0 if there is none."""
        return sum(s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items())

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """The samples of that name that have those labels, summed by another label."""
        found = {s.labels[label] for s in self.samples if s.name == name and labels.items() <= s.labels.items()}
        return {each: self.value(name, **labels, **{label: each}) for each in found}

    def with_label(self, label: str, value: str) -> set[str]:
        """Names of the samples that have a label of that value."""
        return {sample.name for sample in self.samples if sample.labels.get(label) == value}


def get(address: str, path: str = "/metrics", method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body that a listener answers with."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def scrape(address: str) -> Scrape:
    """What is there to be read at this moment."""
    status, headers, body = get(address)
    assert status == 200, body
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(body.decode())
