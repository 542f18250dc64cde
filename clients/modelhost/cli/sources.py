"""`modelhost source`: the places that models are deployed from."""

from pathlib import Path
from typing import Annotated

import typer

from modelhost.cli import api
from modelhost.cli.arguments import Project, SourceName
from modelhost.cli.connection import Session
from modelhost.cli.errors import CommandError, ExitCode, usage
from modelhost.cli.flags import verb
from modelhost.cli.gitlab import GitLabFlags
from modelhost.cli.paging import whole
from modelhost.cli.render import location_words, moment, short


@verb
def add(
    session: Session,
    gitlab: GitLabFlags,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it: letters, digits, `_`, `-`.")],
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="A Git URL, or a directory of the server's host. See above.")
    ] = None,
    *,
    gitlab_url: Annotated[
        str | None,
        typer.Option("--gitlab", metavar="URL", help="A GitLab instead: its address.", rich_help_panel="GitLab"),
    ] = None,
    description: Annotated[str, typer.Option(help="What people should know about it.")] = "",
    test: Annotated[bool, typer.Option("--test/--no-test", help="Try it at once; if it fails, it stays added.")] = True,
) -> None:
    """Register a place that models are deployed from.

    The URL names one Git repository, or the place that holds several; then a deployment says which one with --project.

    With --gitlab, projects are read through GitLab's API. That takes a token with the scopes read_api and
    read_repository: in a file, in MODELHOST_GITLAB_TOKEN, from a pipe, or typed in when asked for. There is no option
    for the token itself, for lists of processes show command lines.

    Examples:
      modelhost source add models https://git.example.com/team/models.git
      modelhost source add team https://git.example.com/team
      modelhost source add local ./my-models
      modelhost source add energy --gitlab https://gitlab.example.com --namespace energy
      pass show gitlab | modelhost source add energy --gitlab https://gitlab.example.com
    """
    if (url is None) == (gitlab_url is None):
        raise usage("a data source is either a Git URL or a GitLab: give URL, or --gitlab URL")
    wanted = api.DataSource(description=description)
    location, given = gitlab.given()
    if url is not None:
        if given or gitlab.gitlab_token_file:
            raise usage("this says how to reach a GitLab, but there is none: give its address with --gitlab URL")
        wanted.git.url = _location(url)
    else:
        location.url, location.token = gitlab_url or "", gitlab.token()
        wanted.gitlab.CopyFrom(location)
    created = session.admin.CreateDataSource(api.CreateDataSourceRequest(data_source_id=name, data_source=wanted))
    if session.as_json:
        session.out.document(created)
    else:
        session.out.line(f"data source {short(created.name)} added: {location_words(created)}")
    if test:
        _try_out(session, created.name)


def _location(url: str) -> str:
    local = Path(url).expanduser()
    return str(local.resolve()) if "://" not in url and local.is_dir() else url


def _try_out(session: Session, name: str) -> None:
    """Say whether a data source that was just changed can be used; it stays as it is."""
    result = session.admin.TestDataSource(api.TestDataSourceRequest(name=name))
    if not result.ok:
        session.out.warn(f"it cannot be used yet: {result.message}")
    elif not session.as_json:
        session.out.line(_tested(result))
    for warning in result.warnings:
        session.out.warn(warning)


@verb
def update(
    session: Session,
    gitlab: GitLabFlags,
    name: SourceName,
    *,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Its new place; another GitLab needs a new token, too.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="What people should know about it.")] = None,
    new_token: Annotated[
        bool,
        typer.Option(
            "--new-token",
            help="Give it a new token: from MODELHOST_GITLAB_TOKEN, a pipe, or typed in when asked for.",
            rich_help_panel="GitLab",
        ),
    ] = False,
    test: Annotated[bool, typer.Option("--test/--no-test", help="Try it at once; if it fails, it stays so.")] = True,
) -> None:
    """Change a data source, leave the rest as it is. Deployments go on with it.

    Examples:
      modelhost source update energy --new-token
      modelhost source update energy --gitlab-token-file token.txt --namespace energy/forecasting
      modelhost source update models --url https://git.example.com/team/models.git
    """
    location, fields = gitlab.given()
    wants_token = new_token or gitlab.gitlab_token_file is not None
    is_gitlab = bool(fields) or wants_token
    if url is not None and not is_gitlab:
        is_gitlab = session.admin.GetDataSource(api.GetDataSourceRequest(name=name)).HasField("gitlab")
    wanted = api.DataSource(name=name, description=description or "")
    paths = [] if description is None else ["description"]
    if is_gitlab:
        if url is not None:
            location.url = url
            fields.append("url")
        if wants_token:
            location.token = gitlab.token()
            fields.append("token")
        wanted.gitlab.CopyFrom(location)
        paths += [f"gitlab.{field}" for field in fields]
    elif url is not None:
        wanted.git.url = _location(url)
        paths.append("git.url")
    if not paths:
        raise usage("there is nothing to change", "`modelhost source update --help` shows what can be changed")
    request = api.UpdateDataSourceRequest(data_source=wanted)
    request.update_mask.paths.extend(paths)
    changed = session.admin.UpdateDataSource(request)
    if session.as_json:
        session.out.document(changed)
    else:
        session.out.line(f"data source {short(changed.name)} updated: {location_words(changed)}")
    if test:
        _try_out(session, changed.name)


@verb
def try_(session: Session, name: SourceName, project: Project = "") -> None:
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
    if session.as_json:
        return
    session.out.line(_tested(result))
    for warning in result.warnings:
        session.out.warn(warning)


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
    rows = [(short(s.name), location_words(s), s.description, moment(s.create_time)) for s in answer.data_sources]
    session.out.table(
        ["NAME", "URL", "DESCRIPTION", "ADDED"], rows, empty="no data sources yet: `modelhost source add NAME URL`"
    )
    for source in answer.data_sources:
        for warning in source.warnings:
            session.out.warn(f"{short(source.name)}: {warning}")


@verb
def delete(session: Session, name: SourceName) -> None:
    """Forget a data source that no deployment uses. What is in it stays as it is.

    Examples:
      modelhost source delete models
    """
    answer = session.admin.DeleteDataSource(api.DeleteDataSourceRequest(name=name))
    if session.as_json:
        session.out.document(answer)
    else:
        session.out.line(f"data source {short(name)} deleted")
