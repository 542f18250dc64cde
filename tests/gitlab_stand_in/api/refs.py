"""Branches, tags and commits of a repository."""

from collections.abc import Callable
from typing import Any

from tests.gitlab_stand_in import git_data
from tests.gitlab_stand_in.answers import Answer, Refused, json_answer, message, not_found
from tests.gitlab_stand_in.call import Call
from tests.gitlab_stand_in.git_data import Ref
from tests.gitlab_stand_in.pages import by_keyset, by_offset
from tests.gitlab_stand_in.world import Project


def branches(call: Call) -> Answer:
    project = call.code()
    found = _matching(git_data.refs(project.repo, "heads"), call.query.get("search", ""))
    return _page(call, found, lambda ref: _branch(call, project, ref))


def branch(call: Call) -> Answer:
    project = call.code()
    return json_answer(_branch(call, project, _named(git_data.refs(project.repo, "heads"), call, "branch")))


def tags(call: Call) -> Answer:
    """By date and newest first, unless something else is asked for."""
    project = call.code()
    found = _matching(git_data.refs(project.repo, "tags"), call.query.get("search", ""))
    if call.query.get("order_by", "updated") == "updated":
        found.sort(key=lambda ref: ref.created)
    if call.query.get("sort", "desc") == "desc":
        found.reverse()
    return _page(call, found, lambda ref: _tag(call, project, ref))


def tag(call: Call) -> Answer:
    project = call.code()
    return json_answer(_tag(call, project, _named(git_data.refs(project.repo, "tags"), call, "tag")))


def commit(call: Call) -> Answer:
    project = call.code()
    hash_ = call.commit(project, call.parts["sha"])
    if hash_ is None:
        raise not_found("Commit")
    more = {
        "stats": {"additions": 0, "deletions": 0, "total": 0},
        "status": None,
        "project_id": project.id,
        "last_pipeline": None,
    }
    return json_answer(_commit(call, project, hash_) | more)


def commits(call: Call) -> Answer:
    """History from `ref_name`, newest first. GitLab counts no totals here."""
    project = call.code()
    start = call.commit(project, call.query.get("ref_name"))
    if start is None:
        raise not_found("Commit")
    hashes = git_data.git(project.repo, "rev-list", start).decode().split()
    return by_offset(call, hashes, lambda hash_: _commit(call, project, hash_), counted=False)


def _page(call: Call, found: list[Ref], entity: Callable[[Ref], dict[str, Any]]) -> Answer:
    if call.query.get("pagination") != "keyset":
        return by_offset(call, found, entity)
    if edge := call.query.get("page_token"):
        names = [ref.name for ref in found]
        found = found[names.index(edge) + 1 :] if edge in names else []
    return by_keyset(call, found, entity, lambda ref: {"page_token": ref.name})


def _matching(found: list[Ref], search: str) -> list[Ref]:
    """`^text` is how it begins, `text$` how it ends."""
    text = search.removeprefix("^").removesuffix("$").lower()
    if search.startswith("^"):
        return [ref for ref in found if ref.name.lower().startswith(text)]
    if search.endswith("$"):
        return [ref for ref in found if ref.name.lower().endswith(text)]
    return [ref for ref in found if text in ref.name.lower()]


def _named(found: list[Ref], call: Call, part: str) -> Ref:
    if not git_data.valid_name(call.parts[part]):
        raise Refused(message(400, f"The {part} refname is invalid"))
    for ref in found:
        if ref.name == call.parts[part]:
            return ref
    raise not_found(part.capitalize())


def _branch(call: Call, project: Project, ref: Ref) -> dict[str, Any]:
    default = ref.name == git_data.default_branch(project.repo)
    return {
        "name": ref.name,
        "commit": _commit(call, project, ref.commit),
        "merged": False,
        "protected": default,
        "developers_can_push": False,
        "developers_can_merge": False,
        "can_push": False,
        "default": default,
        "web_url": f"{call.place.external_url}/{project.path}/-/tree/{ref.name}",
    }


def _tag(call: Call, project: Project, ref: Ref) -> dict[str, Any]:
    commit = git_data.resolve(project.repo, ref.target)
    return {
        "name": ref.name,
        "message": ref.text or "",
        "target": ref.target,
        "commit": _commit(call, project, commit) if commit else None,
        "release": None,
        "protected": False,
        "created_at": ref.created if ref.text is not None else None,
    }


def _commit(call: Call, project: Project, hash_: str) -> dict[str, Any]:
    found = git_data.commit_of(project.repo, hash_)
    return {
        "id": found.id,
        "short_id": found.id[:8],
        "created_at": found.committer[2],
        "parent_ids": list(found.parents),
        "title": found.text.partition("\n")[0],
        "message": found.text,
        "author_name": found.author[0],
        "author_email": found.author[1],
        "authored_date": found.author[2],
        "committer_name": found.committer[0],
        "committer_email": found.committer[1],
        "committed_date": found.committer[2],
        "trailers": {},
        "extended_trailers": {},
        "web_url": f"{call.place.external_url}/{project.path}/-/commit/{found.id}",
    }
