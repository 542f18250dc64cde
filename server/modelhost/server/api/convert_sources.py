"""Between data sources, what is in them, and messages of the public API."""

from modelhost.server.api import names
from modelhost.server.api.convert import timestamp
from modelhost.server.control.sources import GIT, GITLAB, Location
from modelhost.server.resources import DataSource, SourceOptions
from modelhost.server.sources import EntryKind, SourceProject, SourceRef, TreeEntry
from modelhost.server.sources.gitlab.expiry import expiry_warning
from modelhost.server.sources.paths import shown
from modelhost.v1 import data_source_pb2 as pb

_KINDS = {
    EntryKind.FILE: pb.SourceFile.KIND_FILE,
    EntryKind.EXECUTABLE: pb.SourceFile.KIND_EXECUTABLE,
    EntryKind.LINK: pb.SourceFile.KIND_LINK,
    EntryKind.SUBMODULE: pb.SourceFile.KIND_SUBMODULE,
}


def data_source(value: DataSource, now: float) -> pb.DataSource:
    """A data source, without its secret."""
    warning = expiry_warning(value.options.token_expires, now)
    message = pb.DataSource(
        name=names.join(names.DATA_SOURCES, value.id),
        description=value.description,
        create_time=timestamp(value.created),
        update_time=timestamp(value.updated),
        etag=str(value.version),
        warnings=[warning] if warning else [],
    )
    if value.kind == GIT:
        message.git.url = value.url
        return message
    options = value.options
    message.gitlab.CopyFrom(
        pb.GitLabLocation(
            url=value.url,
            namespace=options.namespace,
            ca_certificates=options.ca_certificates,
            insecure_skip_verify=options.insecure_skip_verify,
            token_expire_time=timestamp(options.token_expires),
        )
    )
    return message


def location_from(message: pb.DataSource) -> Location:
    """Where a data source is to lie; as it came, checked by whoever stores it."""
    if message.WhichOneof("location") == GIT:
        return Location(GIT, message.git.url)
    gitlab = message.gitlab
    options = SourceOptions(gitlab.namespace, gitlab.ca_certificates, gitlab.insecure_skip_verify)
    return Location(GITLAB, gitlab.url, options, gitlab.token)


def project(value: SourceProject) -> pb.Project:
    """A project of a data source."""
    return pb.Project(
        id=value.id,
        path=shown(value.path),
        title=value.title,
        default_branch=value.default_branch,
        activity_time=timestamp(value.active),
    )


def ref(value: SourceRef) -> pb.Ref:
    """A branch or tag."""
    kind = pb.Ref.KIND_TAG if value.is_tag else pb.Ref.KIND_BRANCH
    return pb.Ref(name=value.name, kind=kind, commit=value.commit, is_default=value.is_default)


def source_file(value: TreeEntry) -> pb.SourceFile:
    """A file of a commit."""
    return pb.SourceFile(path=shown(value.path), size=value.size, kind=_KINDS[value.kind])
