"""Projects, groups and namespaces, and lists of them."""

from typing import Any

from tests.gitlab_stand_in import git_data
from tests.gitlab_stand_in.answers import Answer, json_answer, not_found
from tests.gitlab_stand_in.call import Call
from tests.gitlab_stand_in.pages import by_keyset, by_offset, no_keyset
from tests.gitlab_stand_in.world import Group, Project, timestamp


def projects(call: Call) -> Answer:
    found = call.world.visible(call.token)
    if call.flag("membership"):
        token = call.require_user()
        found = (project for project in found if token.sees(project.path))
    return listed(call, list(found), keyset=True)


def project(call: Call) -> Answer:
    return json_answer(_project(call, call.project()))


def group(call: Call) -> Answer:
    return json_answer(_group(call, call.group()))


def group_projects(call: Call) -> Answer:
    path = call.group().path
    below = call.flag("include_subgroups")
    found = [
        project
        for project in call.world.visible(call.token)
        if project.namespace == path or (below and project.path.startswith(f"{path}/"))
    ]
    return listed(call, found)


def namespace(call: Call) -> Answer:
    call.require_user()
    wanted = call.parts["id"]
    for user in call.world.users:
        if not user.bot and wanted.lower() == user.username.lower():
            kind = {"id": user.id, "name": user.name, "path": user.username, "kind": "user"}
            more = {"full_path": user.username, "parent_id": None, "avatar_url": None}
            return json_answer(kind | more | {"web_url": f"{call.place.external_url}/{user.username}"})
    found = call.world.find_group(wanted)
    if found is None:
        raise not_found("Namespace")
    return json_answer(_namespace(call, found))


def listed(call: Call, found: list[Project], *, keyset: bool = False) -> Answer:
    """Some projects, filtered, sorted and cut into pages as the request wants it."""
    if search := call.query.get("search", "").lower():
        deep = call.flag("search_namespaces")
        found = [p for p in found if search in (p.path if deep else p.slug).lower() or search in p.description.lower()]
    if "archived" in call.query:
        found = [p for p in found if p.archived == call.flag("archived")]
    if call.flag("owned"):
        found = [p for p in found if p.owner is not None]
    ascending = call.query.get("sort", "desc") == "asc"
    order = call.query.get("order_by", "created_at")
    keys = {"name": lambda p: p.slug.lower(), "path": lambda p: p.slug.lower()}
    found = sorted(found, key=keys.get(order, lambda p: p.id), reverse=not ascending)

    def entity(project: Project) -> dict[str, Any]:
        return _basic(call, project) if call.flag("simple") else _project(call, project)

    if call.query.get("pagination") != "keyset":
        return by_offset(call, found, entity)
    if not keyset or order != "id":
        raise no_keyset()
    name = "id_after" if ascending else "id_before"
    if edge := call.query.get(name):
        found = [p for p in found if (p.id > int(edge) if ascending else p.id < int(edge))]
    return by_keyset(call, found, entity, lambda p: {name: str(p.id)}, looks_ahead=False)


def _basic(call: Call, project: Project) -> dict[str, Any]:
    base = call.place.external_url
    above = project.namespace.replace("/", " / ")
    return {
        "id": project.id,
        "description": project.description or None,
        "name": project.slug,
        "name_with_namespace": f"{above} / {project.slug}",
        "path": project.slug,
        "path_with_namespace": project.path,
        "created_at": timestamp(project.created),
        "default_branch": git_data.default_branch(project.repo),
        "tag_list": [],
        "topics": [],
        "ssh_url_to_repo": f"git@gitlab.example.com:{project.path}.git",
        "http_url_to_repo": f"{base}/{project.path}.git",
        "web_url": f"{base}/{project.path}",
        "readme_url": None,
        "forks_count": 0,
        "avatar_url": None,
        "star_count": 0,
        "last_activity_at": timestamp(project.created),
        "namespace": _namespace_of(call, project),
    }


def _project(call: Call, project: Project) -> dict[str, Any]:
    guest = call.token is not None and call.token.guest
    basic = _basic(call, project)
    if guest:
        del basic["default_branch"]
    return basic | {
        "empty_repo": git_data.default_branch(project.repo) is None,
        "archived": project.archived,
        "visibility": "public" if project.public else "private",
        "repository_access_level": "enabled",
        "lfs_enabled": True,
        "creator_id": call.world.owner.id,
        "import_status": "none",
        "repository_object_format": "sha1",
        "permissions": {"project_access": {"access_level": 10 if guest else 20}, "group_access": None},
        "_links": {"self": f"{call.place.external_url}/api/v4/projects/{project.id}"},
    }


def _namespace_of(call: Call, project: Project) -> dict[str, Any]:
    if owner := project.owner:
        kind = {"id": owner.id, "name": owner.name, "path": owner.username, "kind": "user"}
        more = {"full_path": owner.username, "parent_id": None, "avatar_url": None}
        return kind | more | {"web_url": f"{call.place.external_url}/{owner.username}"}
    return _namespace(call, call.world.group(project.namespace))


def _namespace(call: Call, group: Group) -> dict[str, Any]:
    return {
        "id": group.id,
        "name": group.path.rpartition("/")[2],
        "path": group.path.rpartition("/")[2],
        "kind": "group",
        "full_path": group.path,
        "parent_id": _parent(call, group),
        "avatar_url": None,
        "web_url": f"{call.place.external_url}/groups/{group.path}",
    }


def _group(call: Call, group: Group) -> dict[str, Any]:
    slug = group.path.rpartition("/")[2]
    return {
        "id": group.id,
        "web_url": f"{call.place.external_url}/groups/{group.path}",
        "name": slug,
        "path": slug,
        "description": "",
        "visibility": "private",
        "full_name": group.path.replace("/", " / "),
        "full_path": group.path,
        "created_at": "2023-01-01T09:00:00.000Z",
        "parent_id": _parent(call, group),
        "lfs_enabled": True,
        "archived": False,
    }


def _parent(call: Call, group: Group) -> int | None:
    above = call.world.find_group(group.path.rpartition("/")[0])
    return above.id if above else None
