"""Revisions: what a deployment ever ran, and what became different from one to the next."""

import asyncio

from modelhost.server.api import convert, names, paging
from modelhost.server.api.call import Call
from modelhost.server.control.deployments import Deployments
from modelhost.server.control.diff import Differ
from modelhost.server.errors import InvalidRequest
from modelhost.server.resources import Revision
from modelhost.server.sources.snapshots import SnapshotStore
from modelhost.server.store import deployments
from modelhost.server.store.database import Database, Transaction
from modelhost.v1 import deployment_pb2 as pb

NEWEST = 2**31


class RevisionMethods:
    """Handlers of the Revision methods."""

    def __init__(self, database: Database, commands: Deployments, snapshots: SnapshotStore, differ: Differ) -> None:
        self._database = database
        self._commands = commands
        self._snapshots = snapshots
        self._differ = differ

    async def get_revision(self, call: Call, request: pb.GetRevisionRequest) -> pb.Revision:
        """Show a revision with its files."""
        deployment_id, number = names.parse_revision(request.name)

        def find(tx: Transaction) -> Revision:
            return self._commands.find_revision(tx, self._commands.find(tx, deployment_id), number)

        revision = await self._database.run(find)
        snapshot = None
        if revision.snapshot_digest:
            snapshot = await asyncio.to_thread(self._snapshots.find, revision.snapshot_digest)
        return convert.revision(revision, deployment_id, snapshot.files if snapshot else ())

    async def list_revisions(self, call: Call, request: pb.ListRevisionsRequest) -> pb.ListRevisionsResponse:
        """List the revisions of a deployment, newest first."""
        size = paging.page_size(request.page_size)
        deployment_id = names.parse(request.parent, names.DEPLOYMENTS, "parent")
        listing = f"revisions {deployment_id}"
        (before,) = paging.numbers_in(request.page_token, listing, 1) or (NEWEST,)

        def page(tx: Transaction) -> list[Revision]:
            return deployments.revisions_page(tx, self._commands.find(tx, deployment_id).uid, before, size + 1)

        found = await self._database.run(page)
        return pb.ListRevisionsResponse(
            revisions=[convert.revision(one, deployment_id) for one in found[:size]],
            next_page_token=paging.cut(listing, [str(one.number) for one in found], size),
        )

    async def diff_revisions(self, call: Call, request: pb.DiffRevisionsRequest) -> pb.DiffRevisionsResponse:
        """Compare two revisions."""
        deployment_id, number = names.parse_revision(request.name)
        if request.base_revision < 0:
            raise InvalidRequest("base_revision", "{field} must be the number of a revision, or 0")

        def find(tx: Transaction) -> tuple[Revision, Revision]:
            deployment = self._commands.find(tx, deployment_id)
            newer = self._commands.find_revision(tx, deployment, number)
            base = request.base_revision or deployments.revision_before(tx, deployment.uid, number)
            return (self._commands.find_revision(tx, deployment, base) if base else newer), newer

        base, newer = await self._database.run(find)
        return convert.diff(base, newer, await asyncio.to_thread(self._differ.compare, base, newer))
