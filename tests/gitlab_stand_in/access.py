"""Who is asking, and may they. As in GitLab's lib/api/api_guard.rb and lib/gitlab/auth/auth_finders.rb.

Tokens that expired or were revoked are told so, unknown ones are not told anything.
"""

from tests.gitlab_stand_in.answers import Refused, oauth_error, unauthorized
from tests.gitlab_stand_in.requests import Request
from tests.gitlab_stand_in.world import Token, World

Scopes = tuple[str, ...]

API_SCOPES: Scopes = ("api", "read_api")
USER_SCOPES: Scopes = ("read_user", *API_SCOPES)
FILE_SCOPES: Scopes = ("read_repository", *API_SCOPES)
"""Of the endpoints for files. Tree, blobs, archives, branches, tags and commits do not do with `read_repository`."""
ANY_SCOPE: Scopes = ()
DOWNLOAD_SCOPES: Scopes = ("read_repository", "write_repository", *API_SCOPES)
"""Those that may `git clone` and fetch LFS objects."""


def authenticate(world: World, request: Request, scopes: Scopes) -> Token | None:
    """The request's token, checked; None if it has none at all."""
    sent = _sent(request)
    if sent is None:
        return None
    token = world.tokens.get(sent)
    if token is None:
        raise unauthorized()
    if token.expired:
        raise _invalid("Token is expired. You can either do re-authorization or token refresh.")
    if token.revoked:
        raise _invalid("Token was revoked. You have to re-authorize from the user.")
    if scopes and not set(scopes) & set(token.scopes):
        raise oauth_error(
            403,
            "insufficient_scope",
            "The request requires higher privileges than provided by the access token.",
            scope=" ".join(scopes),
        )
    return token


def _sent(request: Request) -> str | None:
    if token := request.headers.get("Private-Token") or request.query.get("private_token"):
        return str(token)
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return str(credentials.strip())
    return None


def _invalid(description: str) -> Refused:
    return oauth_error(401, "invalid_token", description)
