"""`modelhost source`: the places that models are deployed from."""

from pathlib import Path
from typing import Annotated

import typer

from modelhost.cli import api
from modelhost.cli.connection import Session
from modelhost.cli.errors import CommandError, ExitCode
from modelhost.cli.flags import verb
from modelhost.cli.paging import whole
from modelhost.cli.render import moment, short, size

_Source = Annotated[str, typer.Argument(metavar="NAME", help="The data source.")]
_Project = Annotated[str, typer.Option(metavar="PATH", help="Path of the project within the data source.")]


@verb
def add(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it: letters, digits, `_`, `-`.")],
    url: Annotated[
        str, typer.Argument(metavar="URL", help="A Git URL, or a directory of the server's host. See above.")
    ],
    description: Annotated[str, typer.Option(help="What people should know about it.")] = "",
    test: Annotated[bool, typer.Option("--test/--no-test", help="Try it at once; if it fails, it stays added.")] = True,
) -> None:
    """Register a place that models are deployed from.

    The URL names one Git repository, or the place that holds several; then a deployment says which one with --project.

    Examples:
      modelhost source add models https://git.example.com/team/models.git
      modelhost source add team https://git.example.com/team
      modelhost source add local ./my-models
    """
    local = Path(url).expanduser()
    location = str(local.resolve()) if "://" not in url and local.is_dir() else url
    created = session.admin.CreateDataSource(
        api.CreateDataSourceRequest(
            data_source_id=name,
            data_source=api.DataSource(description=description, git=api.GitLocation(url=location)),
        )
    )
    if session.as_json:
        session.out.document(created)
    else:
        session.out.line(f"data source {short(created.name)} added: {created.git.url}")
    if not test:
        return
    result = session.admin.TestDataSource(api.TestDataSourceRequest(name=created.name))
    if not result.ok:
        session.out.warn(f"it cannot be used yet: {result.message}")
    elif not session.as_json:
        session.out.line(_tested(result))


@verb
def try_(session: Session, name: _Source, project: _Project = "") -> None:
    """Say whether a data source can be reached and used; exit code 1 if not.

    Examples:
      modelhost source test models
      modelhost source test team --project fraud/scoring
    """
    result = session.admin.TestDataSource(api.TestDataSourceRequest(name=name, project=project))
    if session.as_json:
        session.out.document(result)
    if not result.ok:
        raise CommandError(result.message, ExitCode.FAILED, reason=result.reason)
    if not session.as_json:
        session.out.line(_tested(result))


def _tested(result: "api.TestDataSourceResponse") -> str:
    parts = [result.message.rstrip(".") or "it can be used"]
    if result.default_branch and result.default_branch not in result.message:
        parts.append(f"default branch {result.default_branch}")
    if result.ref_count and str(result.ref_count) not in result.message:
        parts.append(f"{result.ref_count} branches and tags")
    return "ok: " + ", ".join(parts)


@verb
def list_(session: Session) -> None:
    """List the data sources.

    Examples:
      modelhost source list
      modelhost source list --json | jq -r '.data_sources[].name'
    """
    answer = whole(session.admin.ListDataSources, api.ListDataSourcesRequest())
    if session.as_json:
        session.out.document(answer)
        return
    rows = [(short(s.name), s.git.url, s.description, moment(s.create_time)) for s in answer.data_sources]
    session.out.table(
        ["NAME", "URL", "DESCRIPTION", "ADDED"], rows, empty="no data sources yet: `modelhost source add NAME URL`"
    )


@verb
def delete(session: Session, name: _Source) -> None:
    """Forget a data source that no deployment uses. What is in it stays as it is.

    Examples:
      modelhost source delete models
    """
    answer = session.admin.DeleteDataSource(api.DeleteDataSourceRequest(name=name))
    if session.as_json:
        session.out.document(answer)
    else:
        session.out.line(f"data source {short(name)} deleted")


@verb
def refs(
    session: Session,
    name: _Source,
    project: _Project = "",
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
    name: _Source,
    project: _Project = "",
    ref: Annotated[str, typer.Option(help="Branch, tag or commit; else the default branch.")] = "",
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
    rows = []
    for file in answer.files:
        kind = api.SourceFile.Kind.Name(file.kind).removeprefix("KIND_").lower()
        rows.append((size(file.size) if kind in {"file", "executable"} else "", kind, file.path))
    session.out.table(["SIZE", "KIND", "PATH"], rows, empty="no files there")
    session.out.note(f"commit {answer.commit}")
