"""`modelhost source projects`, `refs`, `files` and `cat`: looking around before anything is deployed."""

from typing import Annotated

import typer

from modelhost.cli import api
from modelhost.cli.arguments import Project, SourceName
from modelhost.cli.connection import Session
from modelhost.cli.flags import verb
from modelhost.cli.paging import whole
from modelhost.cli.render import moment, size

_SHOWN_BYTES = 1024 * 1024  # of a file, by ReadFile

_Ref = Annotated[str, typer.Option(help="Branch, tag or commit; else the default branch.")]


@verb
def projects(
    session: Session,
    name: SourceName,
    search: Annotated[str, typer.Option(metavar="TEXT", help="Only those whose name or path contains this.")] = "",
) -> None:
    """List the projects that can be deployed from; deployments may name them by path or by number.

    Examples:
      modelhost source projects energy
      modelhost source projects energy --search turbine
    """
    answer = whole(session.admin.ListProjects, api.ListProjectsRequest(data_source=name, search=search))
    if session.as_json:
        session.out.document(answer)
        return
    rows = [(p.id, p.path, p.title, p.default_branch, moment(p.activity_time)) for p in answer.projects]
    session.out.table(["NUMBER", "PATH", "TITLE", "DEFAULT BRANCH", "ACTIVE"], rows, empty="no such projects")


@verb
def refs(
    session: Session,
    name: SourceName,
    project: Project = "",
    prefix: Annotated[str, typer.Option(help="Only those whose name starts with this.")] = "",
) -> None:
    """List the branches and tags that can be deployed.

    Examples:
      modelhost source refs models
      modelhost source refs team --project fraud/scoring --prefix v1.
    """
    request = api.ListRefsRequest(data_source=name, project=project, prefix=prefix)
    answer = whole(session.admin.ListRefs, request)
    if session.as_json:
        session.out.document(answer)
        return
    rows = []
    for ref in answer.refs:
        kind = api.Ref.Kind.Name(ref.kind).removeprefix("KIND_").lower()
        rows.append((ref.name, f"{kind} (default)" if ref.is_default else kind, ref.commit))
    session.out.table(["NAME", "KIND", "COMMIT"], rows, empty="no such branches or tags")


@verb
def files(
    session: Session,
    name: SourceName,
    project: Project = "",
    ref: _Ref = "",
    directory: Annotated[str, typer.Option(metavar="PATH", help="Only what is below this directory.")] = "",
) -> None:
    """List the files of a commit.

    Examples:
      modelhost source files models --ref v1.2
      modelhost source files team --project fraud/scoring --directory churn
    """
    request = api.ListFilesRequest(data_source=name, project=project, ref=ref, directory=directory)
    answer = whole(session.admin.ListFiles, request)
    if session.as_json:
        session.out.document(answer)
        return
    has_sizes = any(file.size for file in answer.files)  # GitLab tells none
    rows = []
    for file in answer.files:
        kind = api.SourceFile.Kind.Name(file.kind).removeprefix("KIND_").lower()
        rows.append((size(file.size) if has_sizes and kind in {"file", "executable"} else "", kind, file.path))
    session.out.table(["SIZE", "KIND", "PATH"], rows, empty="no files there")
    session.out.note(f"commit {answer.commit}")


@verb
def cat(
    session: Session,
    name: SourceName,
    path: Annotated[str, typer.Argument(metavar="PATH", help="The file, from the repository's root.")],
    *,
    project: Project = "",
    ref: _Ref = "",
) -> None:
    """Print a file's text, at most 1 MiB of it.

    Examples:
      modelhost source cat models main.py
      modelhost source cat energy modelhost.toml --project forecasting/turbine --ref v1.2
    """
    answer = session.admin.ReadFile(api.ReadFileRequest(data_source=name, project=project, ref=ref, path=path))
    if session.as_json:
        session.out.document(answer)
        return
    session.out.text(answer.text)
    if answer.size > _SHOWN_BYTES:
        session.out.warn(f"this is the beginning of {path}: all of it has {size(answer.size)}")
    session.out.note(f"commit {answer.commit}")
