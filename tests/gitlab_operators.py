"""What operators do with data sources in a GitLab, on a real server and the stand-in."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from modelhost.v1 import data_source_pb2 as pb
from tests.gitlab_stand_in import GitLab
from tests.running import RunningServer


def register(server: RunningServer, source_id: str, gitlab: GitLab, **fields: Any) -> pb.DataSource:
    """Register the stand-in, with a good token unless `token` is another; `fields` are those of GitLabLocation."""
    where = {"url": gitlab.url, "token": gitlab.token(), **fields}
    return server.client.admin.CreateDataSource(
        pb.CreateDataSourceRequest(
            data_source_id=source_id, data_source=pb.DataSource(gitlab=pb.GitLabLocation(**_plain(where)))
        )
    )


def update(
    server: RunningServer, source_id: str, *, mask: Sequence[str] = (), etag: str = "", **fields: Any
) -> pb.DataSource:
    """Update a data source in a GitLab; `fields` are those of GitLabLocation, and `description`."""
    wanted = pb.DataSource(name=source_id, etag=etag, description=fields.pop("description", ""))
    if fields:
        wanted.gitlab.CopyFrom(pb.GitLabLocation(**_plain(fields)))
    request = pb.UpdateDataSourceRequest(data_source=wanted, update_mask=FieldMask(paths=mask))
    return server.client.admin.UpdateDataSource(request)


def get(server: RunningServer, source_id: str) -> pb.DataSource:
    return server.client.admin.GetDataSource(pb.GetDataSourceRequest(name=source_id))


def try_out(server: RunningServer, source_id: str, project: str = "") -> pb.TestDataSourceResponse:
    return server.client.admin.TestDataSource(pb.TestDataSourceRequest(name=source_id, project=project))


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """The stand-in's tokens as plain text."""
    return {name: str(value) if isinstance(value, str) else value for name, value in fields.items()}
