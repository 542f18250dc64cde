"""Data sources: register, test, look around."""

import codecs
import re
import time

from google.protobuf.message import Message

from modelhost.envs import Job
from modelhost.server.api import convert_sources, masks, names, paging
from modelhost.server.api.auditing import Subject
from modelhost.server.api.call import Call
from modelhost.server.api.mutations import Mutations
from modelhost.server.control.deployments import check_etag
from modelhost.server.control.settings import check_path
from modelhost.server.control.sources import GIT, GITLAB, Sources
from modelhost.server.errors import DomainError, InvalidRequest, NotFound, reason_name
from modelhost.server.resources import DataSource
from modelhost.server.sources import FileContent, Source, TreeEntry
from modelhost.server.sources.paths import shown
from modelhost.server.store import sources
from modelhost.server.store.database import Database, Transaction
from modelhost.v1 import data_source_pb2 as pb
from modelhost.v1.error_reason_pb2 import ErrorReason

DESCRIPTION_LIMIT = 100
SEARCH_LIMIT = 250
TEXT_BYTES = 1024 * 1024
MUTABLE = (
    "description",
    "git.url",
    "gitlab.url",
    "gitlab.namespace",
    "gitlab.token",
    "gitlab.ca_certificates",
    "gitlab.insecure_skip_verify",
)
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_KIND_NAMES = {GIT: "Git", GITLAB: "GitLab"}


class DataSourceMethods:
    """Handlers of the DataSource methods."""

    def __init__(self, database: Database, data_sources: Sources, mutations: Mutations) -> None:
        self._database = database
        self._sources = data_sources
        self._mutations = mutations

    async def create_data_source(self, call: Call, request: pb.CreateDataSourceRequest) -> pb.DataSource:
        """Register a place."""
        names.check_new_id(request.data_source_id, "data_source_id")
        wanted = request.data_source
        if not wanted.WhichOneof("location"):
            raise InvalidRequest("data_source.location", "a location is needed: {field} is not set")
        _check_description(wanted.description)

        def create(tx: Transaction) -> pb.DataSource:
            location = convert_sources.location_from(wanted)
            return _shown(self._sources.create(tx, request.data_source_id, location, wanted.description))

        return await self._mutations.run(
            call,
            request,
            pb.DataSource,
            create,
            self._subject(request.data_source_id),
            validate_only=request.validate_only,
        )

    async def get_data_source(self, call: Call, request: pb.GetDataSourceRequest) -> pb.DataSource:
        """Show one."""
        return _shown(await self._source(request.name, "name"))

    async def list_data_sources(self, call: Call, request: pb.ListDataSourcesRequest) -> pb.ListDataSourcesResponse:
        """List them."""
        size = paging.page_size(request.page_size)
        after = paging.key_in(request.page_token, "dataSources")
        found = await self._database.run(lambda tx: sources.page(tx, after, size + 1))
        return pb.ListDataSourcesResponse(
            data_sources=[_shown(source) for source in found[:size]],
            next_page_token=paging.cut("dataSources", [source.id for source in found], size),
        )

    async def update_data_source(self, call: Call, request: pb.UpdateDataSourceRequest) -> pb.DataSource:
        """Change one: its description, its place, its token."""
        wanted = request.data_source
        source_id = names.parse(wanted.name, names.DATA_SOURCES, "data_source.name")

        def update(tx: Transaction) -> pb.DataSource:
            current = self._sources.find(tx, source_id)
            check_etag(wanted.etag, current.version, f"data source {source_id}")
            message, paths = masks.merged(
                _shown(current), wanted, request.update_mask, mutable=MUTABLE, parts=(GIT, GITLAB)
            )
            _check_kind(current, paths)
            _check_description(message.description)
            location = convert_sources.location_from(message)
            return _shown(self._sources.update(tx, current, location, message.description))

        return await self._mutations.run(call, request, pb.DataSource, update, self._subject(source_id))

    async def delete_data_source(self, call: Call, request: pb.DeleteDataSourceRequest) -> pb.DeleteDataSourceResponse:
        """Forget one."""
        source_id = names.parse(request.name, names.DATA_SOURCES)

        def delete(tx: Transaction) -> pb.DeleteDataSourceResponse:
            check_etag(request.etag, self._sources.find(tx, source_id).version, f"data source {source_id}")
            self._sources.delete(tx, source_id)
            return pb.DeleteDataSourceResponse()

        return await self._mutations.run(call, request, pb.DeleteDataSourceResponse, delete, self._subject(source_id))

    async def test_data_source(self, call: Call, request: pb.TestDataSourceRequest) -> pb.TestDataSourceResponse:
        """Ask whether it can be used."""
        source = await self._source(request.name, "name")
        project = _project(request.project)
        try:
            report = await self._sources.test(source, project)
        except DomainError as error:
            message = f"{error.message}. {error.hint}" if error.hint else error.message
            return pb.TestDataSourceResponse(ok=False, message=message, reason=reason_name(error.reason))
        return pb.TestDataSourceResponse(
            ok=True,
            message=report.message,
            default_branch=report.default_branch,
            ref_count=report.ref_count,
            warnings=report.warnings,
        )

    async def list_projects(self, call: Call, request: pb.ListProjectsRequest) -> pb.ListProjectsResponse:
        """List the projects of a place."""
        size = paging.page_size(request.page_size)
        record = await self._source(request.data_source)
        search = request.search
        if len(search) > SEARCH_LIMIT or not search.isprintable():
            raise InvalidRequest(
                "search", "{field} must have at most {limit} characters, and no control characters", limit=SEARCH_LIMIT
            )
        listing = f"projects {request.data_source} {search}"
        after = paging.key_in(request.page_token, listing, of_files=True)
        try:
            page = await self._sources.ask(record, lambda source, job: source.projects(search, after, size, job))
        except InvalidRequest:  # there is nothing else in the question that the place could refuse
            raise paging.invalid() from None
        return pb.ListProjectsResponse(
            projects=[convert_sources.project(project) for project in page.projects],
            next_page_token=paging.token(listing, page.next) if page.next else "",
        )

    async def list_refs(self, call: Call, request: pb.ListRefsRequest) -> pb.ListRefsResponse:
        """List branches and tags."""
        size = paging.page_size(request.page_size)
        record = await self._source(request.data_source)
        project = _project(request.project)
        listing = f"refs {request.data_source} {project} {request.prefix}"
        after = paging.key_in(request.page_token, listing, of_files=True)
        found = await self._sources.ask(record, lambda source, job: source.refs(project, job))
        keyed = sorted((f"{ref.name}\0{ref.is_tag:d}", ref) for ref in found if ref.name.startswith(request.prefix))
        rest = [(key, ref) for key, ref in keyed if key > after][: size + 1]
        return pb.ListRefsResponse(
            refs=[convert_sources.ref(ref) for _, ref in rest[:size]],
            next_page_token=paging.cut(listing, [key for key, _ in rest], size),
        )

    async def list_files(self, call: Call, request: pb.ListFilesRequest) -> pb.ListFilesResponse:
        """List the files of a commit."""
        size = paging.page_size(request.page_size)
        record = await self._source(request.data_source)
        project, directory = _project(request.project), request.directory.rstrip("/")
        if directory:
            check_path(directory, "directory")
        listing = f"files {request.data_source} {project} {request.ref} {directory}"
        seen, _, after = paging.key_in(request.page_token, listing, of_files=True).partition(" ")
        if request.page_token and not _COMMIT.fullmatch(seen):  # it goes to Git, which may take it for an option
            raise paging.invalid()

        def look(source: Source, job: Job) -> tuple[str, list[TreeEntry]]:
            commit = seen or source.resolve(project, request.ref, job)  # later pages stay with the commit of the first
            return commit, source.tree(project, commit, job)

        commit, tree = await self._sources.ask(record, look)
        below = f"{directory}/" if directory else ""
        if not any(entry.path.startswith(below) for entry in tree) and directory:
            raise NotFound(
                ErrorReason.ERROR_REASON_PATH_NOT_FOUND,
                "commit {commit} has no directory {directory}",
                commit=commit[:12],
                directory=shown(directory),
            )
        rest = sorted((e for e in tree if e.path.startswith(below) and e.path > after), key=lambda e: e.path)[
            : size + 1
        ]
        return pb.ListFilesResponse(
            files=[convert_sources.source_file(entry) for entry in rest[:size]],
            commit=commit,
            next_page_token=paging.cut(listing, [f"{commit} {entry.path}" for entry in rest], size),
        )

    async def read_file(self, call: Call, request: pb.ReadFileRequest) -> pb.ReadFileResponse:
        """Show a file's text."""
        record = await self._source(request.data_source)
        project = _project(request.project)
        if not request.path:
            raise InvalidRequest("path", "{field} is needed: which file of the repository")
        check_path(request.path, "path")

        def read(source: Source, job: Job) -> tuple[str, FileContent]:
            commit = source.resolve(project, request.ref, job)
            return commit, source.read_file(project, commit, request.path, TEXT_BYTES, job)

        commit, content = await self._sources.ask(record, read)
        return pb.ReadFileResponse(text=_text(content), size=content.size, commit=commit)

    def _subject(self, source_id: str) -> Subject:
        def look(tx: Transaction) -> Message | None:
            found = sources.get(tx, source_id)
            return _shown(found) if found else None

        return Subject(names.join(names.DATA_SOURCES, source_id), look)

    async def _source(self, name: str, field: str = "data_source") -> DataSource:
        return await self._sources.get(names.parse(name, names.DATA_SOURCES, field))


def _shown(record: DataSource) -> pb.DataSource:
    return convert_sources.data_source(record, time.time())


def _check_description(description: str) -> None:
    if len(description) > DESCRIPTION_LIMIT:
        raise InvalidRequest(
            "data_source.description", "the description has over {limit} characters", limit=DESCRIPTION_LIMIT
        )


def _check_kind(current: DataSource, paths: list[str]) -> None:
    others = {GIT, GITLAB} - {current.kind}
    for other in others & {path.partition(".")[0] for path in paths}:
        raise InvalidRequest(
            f"data_source.{other}",
            "{data_source} lies in {kind}, and the kind of place cannot be changed: register another data source",
            data_source=current.id,
            kind=_KIND_NAMES[current.kind],
        )


def _text(content: FileContent) -> str:
    """What is not UTF-8 is replaced; a character that the limit cuts in two is left out."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return decoder.decode(content.data, final=len(content.data) == content.size)


def _project(project: str) -> str:
    project = project.rstrip("/")
    if project:
        check_path(project, "project")
    return project
