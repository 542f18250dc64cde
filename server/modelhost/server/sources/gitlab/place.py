"""Where a GitLab lies, how to trust it, and the limits within which it is spoken to."""

import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from modelhost.server.errors import InvalidRequest
from modelhost.server.sources.git.place import MAX_URL_CHARACTERS, check_host
from modelhost.server.sources.outgoing import Outgoing
from modelhost.server.sources.paths import check_relative

MAX_TOKEN_CHARACTERS = 1_000
MAX_CERTIFICATES_CHARACTERS = 1024 * 1024


@dataclass(frozen=True)
class GitLabPlace:
    """A GitLab server, or a namespace of one. Made by `parse_place`; it never has credentials.

    `url` has no `/` at its end. `namespace` is the full path of a group or user, "" for all of the server.
    `ca_certificates` are PEM, of the authorities to trust instead of the host's.
    """

    url: str
    namespace: str = ""
    ca_certificates: str = ""
    insecure_skip_verify: bool = False

    @property
    def name(self) -> str:
        """The place for people."""
        return f"{self.url}/{self.namespace}" if self.namespace else self.url

    def check(self, outgoing: Outgoing) -> None:
        """Raise `Conflict` HOST_NOT_ALLOWED for a place that can be refused without looking its host up."""
        _, host, port = origin(self.url)
        outgoing.check_host(host, port)


@dataclass(frozen=True)
class GitLabLimits:
    """How long, how often and how much. Seconds and bytes.

    GitLab lets a user have few archives and few large blobs a minute (5, on GitLab.com), and says with `Retry-After`
    when the next may be asked for: up to `longest_wait` of it is waited, and more is an error at once.
    https://docs.gitlab.com/security/rate_limits/
    """

    connect_timeout: float = 10
    read_timeout: float = 30  # without a byte
    answer_timeout: float = 60  # for all of an answer in JSON
    download_timeout: float = 1800  # for all of an archive or a file
    attempts: int = 4  # of one request that meets 429, 5xx or a lost connection; of one file that arrives spoilt
    backoff: float = 0.5  # before the second attempt where GitLab names no time; doubled with each
    longest_wait: float = 120
    max_answer_bytes: int = 32 * 1024**2
    max_tree_entries: int = 200_000  # GitLab gives 100 a request
    max_bytes: int = 1024**3  # of the files that are read at once: the `max_bytes` of the snapshot that they are for


def parse_place(
    url: str,
    namespace: str = "",
    *,
    ca_certificates: str = "",
    insecure_skip_verify: bool = False,
    field: str = "gitlab",
) -> GitLabPlace:
    """Check what was registered. Raises `InvalidRequest` that names `{field}.url` and so on, never with a value."""
    name = f"{field}.ca_certificates"
    if len(ca_certificates) > MAX_CERTIFICATES_CHARACTERS:
        raise InvalidRequest(name, "{field} has over {most} characters", most=MAX_CERTIFICATES_CHARACTERS)
    namespace = namespace.strip("/")
    place = GitLabPlace(
        _parse_url(url, f"{field}.url"),
        check_relative(namespace, f"{field}.namespace") if namespace else "",
        ca_certificates.strip(),
        insecure_skip_verify,
    )
    try:
        tls_context(place)
    except (ssl.SSLError, ValueError):
        raise InvalidRequest(name, "{field} are no certificates in PEM") from None
    return place


def check_token(token: str, field: str = "gitlab.token") -> None:
    """Raise `InvalidRequest`, without the token, unless it can be one: visible ASCII characters."""
    if not token:
        raise InvalidRequest(field, "{field} is needed: a personal, project or group access token")
    if len(token) > MAX_TOKEN_CHARACTERS or any(not "!" <= letter <= "~" for letter in token):
        raise InvalidRequest(field, "{field} has blanks, or characters that no token has, or is too long")


def tls_context(place: GitLabPlace) -> ssl.SSLContext:
    """Return how to check the place's certificate. Raises `ssl.SSLError` or `ValueError` for a PEM that is none.

    The authorities are the host's, as OpenSSL finds them (`SSL_CERT_FILE`, `SSL_CERT_DIR`), or only the place's own;
    one of those need not be a root.
    """
    ascii_only = place.ca_certificates.encode("ascii", "replace").decode()  # between certificates there may be comments
    context = ssl.create_default_context(cadata=ascii_only or None)
    if place.ca_certificates:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if place.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL: credentials for one are for no other. Raises `ValueError` if it is none."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _parse_url(url: str, field: str) -> str:
    if not url or len(url) > MAX_URL_CHARACTERS:
        raise InvalidRequest(field, "{field} must have 1 to {most} characters", most=MAX_URL_CHARACTERS)
    if not url.isprintable() or not url.isascii() or " " in url or "\\" in url:
        raise InvalidRequest(field, "{field} has characters that no URL has")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidRequest(field, "{field} is not a well-formed URL") from None
    if parts.scheme not in ("http", "https"):
        raise InvalidRequest(field, "{field} must start with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest(field, "{field} must not have a user or password: the token has a field of its own")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise InvalidRequest(field, "{field} must not have a query or a fragment")
    check_host(parts.hostname or "", field)
    path = parts.path.rstrip("/").removesuffix("/api/v4").rstrip("/")
    if path:
        check_relative(path.removeprefix("/"), field)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{path}"
