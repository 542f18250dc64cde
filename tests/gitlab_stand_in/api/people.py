"""The server itself, users, tokens: `/version`, `/user`, `/users`, `/personal_access_tokens/self`."""

from typing import Any

from tests.gitlab_stand_in.answers import Answer, json_answer, not_found
from tests.gitlab_stand_in.api.projects import listed
from tests.gitlab_stand_in.call import Call
from tests.gitlab_stand_in.pages import by_offset
from tests.gitlab_stand_in.world import User, timestamp

VERSION, REVISION = "18.2.1-ee", "5ba4bd1a9aa"


def version(call: Call) -> Answer:
    call.require_user()
    return json_answer({"version": VERSION, "revision": REVISION})


def metadata(call: Call) -> Answer:
    call.require_user()
    kas = {"enabled": False, "externalUrl": None, "externalK8sProxyUrl": None, "version": None}
    return json_answer({"version": VERSION, "revision": REVISION, "kas": kas, "enterprise": True})


def current_user(call: Call) -> Answer:
    user = call.require_user().user
    more = {
        "created_at": "2023-01-01T09:00:00.000Z",
        "bio": "",
        "email": f"{user.username}@noreply.gitlab.example.com" if user.bot else f"{user.username}@example.com",
        "bot": user.bot,
        "two_factor_enabled": False,
        "external": False,
        "private_profile": False,
        "can_create_group": not user.bot,
        "can_create_project": not user.bot,
        "projects_limit": 0 if user.bot else 100000,
    }
    return json_answer(_user(call, user) | more)


def users(call: Call) -> Answer:
    call.require_user()
    found = call.world.users
    if wanted := call.query.get("username"):
        found = [user for user in found if user.username.lower() == wanted.lower()]
    elif search := call.query.get("search", "").lower():
        found = [user for user in found if search in user.username.lower() or search in user.name.lower()]
    return by_offset(call, list(reversed(found)), lambda user: _user(call, user))


def user_projects(call: Call) -> Answer:
    wanted = call.parts["user_id"]
    names = (str(user.id) if wanted.isdecimal() else user.username.lower() for user in call.world.users)
    user = dict(zip(names, call.world.users, strict=True)).get(wanted.lower())
    if user is None:
        raise not_found("User")
    return listed(call, [project for project in call.world.visible(call.token) if project.owner is user])


def token_itself(call: Call) -> Answer:
    token = call.require_user()
    return json_answer(
        {
            "id": token.id,
            "name": token.name,
            "revoked": token.revoked,
            "created_at": timestamp(token.created),
            "description": None,
            "scopes": list(token.scopes),
            "user_id": token.user.id,
            "last_used_at": timestamp(token.created),
            "active": token.active,
            "expires_at": token.expires.isoformat() if token.expires else None,
            "last_used_ips": ["127.0.0.1"],
        }
    )


def _user(call: Call, user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "username": user.username,
        "public_email": None,
        "name": user.name,
        "state": "active",
        "locked": False,
        "avatar_url": None,
        "web_url": f"{call.place.external_url}/{user.username}",
    }
