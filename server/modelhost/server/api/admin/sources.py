"""Data sources: register, test, look around."""

from modelhost.server.api import convert, names, paging
from modelhost.server.api.call import Call
from modelhost.server.api.mutations import Mutations
from modelhost.server.control.deployments import check_etag
from modelhost.server.control.settings import check_path
from modelhost.server.control.sources import Sources
from modelhost.server.errors import DomainError, InvalidRequest, NotFound, reason_name
from modelhost.server.resources import DataSource
from modelhost.server.sources.paths import shown
from modelhost.server.store import sources
from modelhost.server.store.database import Database, Transaction
from modelhost.v1 import data_source_pb2 as pb
from modelhost.v1.error_reason_pb2 import ErrorReason

DESCRIPTION_LIMIT = 100


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
        if wanted.WhichOneof("location") != "git":
            raise InvalidRequest("data_source.location", "a location is needed: {field} is not set")
        if len(wanted.description) > DESCRIPTION_LIMIT:
            raise InvalidRequest(
                "data_source.description", "the description has over {limit} characters", limit=DESCRIPTION_LIMIT
            )

        def create(tx: Transaction) -> pb.DataSource:
            return convert.data_source(
                self._sources.create(
                    tx, request.data_source_id, kind="git", url=wanted.git.url, description=wanted.description
                )
            )

        return await self._mutations.run(call, request, pb.DataSource, create, validate_only=request.validate_only)

    async def get_data_source(self, call: Call, request: pb.GetDataSourceRequest) -> pb.DataSource:
        """Show one."""
        return convert.data_source(await self._sources.get(names.parse(request.name, names.DATA_SOURCES)))

    async def list_data_sources(self, call: Call, request: pb.ListDataSourcesRequest) -> pb.ListDataSourcesResponse:
        """List them."""
        size = paging.page_size(request.page_size)
        after = paging.key_in(request.page_token, "dataSources")
        found = await self._database.run(lambda tx: sources.page(tx, after, size + 1))
        return pb.ListDataSourcesResponse(
            data_sources=[convert.data_source(source) for source in found[:size]],
            next_page_token=paging.cut("dataSources", [source.id for source in found], size),
        )

    async def delete_data_source(self, call: Call, request: pb.DeleteDataSourceRequest) -> pb.DeleteDataSourceResponse:
        """Forget one."""
        source_id = names.parse(request.name, names.DATA_SOURCES)

        def delete(tx: Transaction) -> pb.DeleteDataSourceResponse:
            check_etag(request.etag, self._sources.find(tx, source_id).version, f"data source {source_id}")
            self._sources.delete(tx, source_id)
            return pb.DeleteDataSourceResponse()

        return await self._mutations.run(call, request, pb.DeleteDataSourceResponse, delete)

    async def test_data_source(self, call: Call, request: pb.TestDataSourceRequest) -> pb.TestDataSourceResponse:
        """Ask whether it can be used."""
        source = self._sources.open(await self._sources.get(names.parse(request.name, names.DATA_SOURCES)))
        project = _project(request.project)
        try:
            report = await self._sources.ask(lambda job: source.test(project, job))
        except DomainError as error:
            message = f"{error.message}. {error.hint}" if error.hint else error.message
            return pb.TestDataSourceResponse(ok=False, message=message, reason=reason_name(error.reason))
        return pb.TestDataSourceResponse(
            ok=True, message=report.message, default_branch=report.default_branch, ref_count=report.ref_count
        )

    async def list_refs(self, call: Call, request: pb.ListRefsRequest) -> pb.ListRefsResponse:
        """List branches and tags."""
        size = paging.page_size(request.page_size)
        source = self._sources.open(await self._source(request.data_source))
        project = _project(request.project)
        listing = f"refs {request.data_source} {project} {request.prefix}"
        after = paging.key_in(request.page_token, listing)
        found = await self._sources.ask(lambda job: source.refs(project, job))
        keyed = sorted((f"{ref.name}\0{ref.is_tag:d}", ref) for ref in found if ref.name.startswith(request.prefix))
        rest = [(key, ref) for key, ref in keyed if key > after][: size + 1]
        return pb.ListRefsResponse(
            refs=[convert.ref(ref) for _, ref in rest[:size]],
            next_page_token=paging.cut(listing, [key for key, _ in rest], size),
        )

    async def list_files(self, call: Call, request: pb.ListFilesRequest) -> pb.ListFilesResponse:
        """List the files of a commit."""
        size = paging.page_size(request.page_size)
        source = self._sources.open(await self._source(request.data_source))
        project, directory = _project(request.project), request.directory.rstrip("/")
        if directory:
            check_path(directory, "directory")
        listing = f"files {request.data_source} {project} {request.ref} {directory}"
        commit, _, after = paging.key_in(request.page_token, listing).partition(" ")
        if not commit:  # later pages stay with the commit of the first
            commit = await self._sources.ask(lambda job: source.resolve(project, request.ref, job))
        tree = await self._sources.ask(lambda job: source.tree(project, commit, job))
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
            files=[convert.source_file(entry) for entry in rest[:size]],
            commit=commit,
            next_page_token=paging.cut(listing, [f"{commit} {entry.path}" for entry in rest], size),
        )

    async def update_data_source(self, call: Call, request: pb.UpdateDataSourceRequest) -> pb.DataSource:
        """Change one."""
        raise NotImplementedError

    async def list_projects(self, call: Call, request: pb.ListProjectsRequest) -> pb.ListProjectsResponse:
        """List projects."""
        raise NotImplementedError

    async def read_file(self, call: Call, request: pb.ReadFileRequest) -> pb.ReadFileResponse:
        """Show a file's text."""
        raise NotImplementedError

    async def _source(self, name: str) -> DataSource:
        return await self._sources.get(names.parse(name, names.DATA_SOURCES, "data_source"))


def _project(project: str) -> str:
    project = project.rstrip("/")
    if project:
        check_path(project, "project")
    return project
