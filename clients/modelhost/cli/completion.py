"""Names for the shell to complete. It gets none, rather than an error, where the server cannot be asked quickly."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from modelhost.client.client import Admin

_PATIENCE = 1.0
_MOST = 1000


def complete_deployment(incomplete: str) -> list[str]:
    """Return the deployments whose name begins like this."""

    def names(admin: "Admin") -> Iterable[str]:
        from modelhost.cli import api

        answer = admin.ListDeployments(api.ListDeploymentsRequest(page_size=_MOST), timeout=_PATIENCE)
        return (deployment.name for deployment in answer.deployments)

    return _beginning_with(incomplete, names)


def complete_revision(context: typer.Context, incomplete: str) -> list[str]:
    """Return the revisions, newest first, of the deployment that was named before."""

    def numbers(admin: "Admin") -> Iterable[str]:
        from modelhost.cli import api

        request = api.ListRevisionsRequest(parent=context.params["name"], page_size=_MOST)
        return (str(revision.number) for revision in admin.ListRevisions(request, timeout=_PATIENCE).revisions)

    return _beginning_with(incomplete, numbers)


def complete_environment(incomplete: str) -> list[str]:
    """Return the environments whose digest begins like this."""

    def digests(admin: "Admin") -> Iterable[str]:
        from modelhost.cli import api

        answer = admin.ListEnvironments(api.ListEnvironmentsRequest(page_size=_MOST), timeout=_PATIENCE)
        return (environment.name for environment in answer.environments)

    return _beginning_with(incomplete, digests)


def complete_account(incomplete: str) -> list[str]:
    """Return the service accounts whose id begins like this."""

    def names(admin: "Admin") -> Iterable[str]:
        from modelhost.cli import api

        answer = admin.ListServiceAccounts(api.ListServiceAccountsRequest(page_size=_MOST), timeout=_PATIENCE)
        return (account.name for account in answer.service_accounts)

    return _beginning_with(incomplete, names)


def complete_service(incomplete: str) -> list[str]:
    """Return the deployments that have a service, and the ids of services, that begin like this."""

    def names(admin: "Admin") -> Iterable[str]:
        from modelhost.cli import api

        services = admin.ListServices(api.ListServicesRequest(page_size=_MOST), timeout=_PATIENCE).services
        return [name for service in services for name in (service.deployment, service.name)]

    return _beginning_with(incomplete, names)


def complete_operator(incomplete: str) -> list[str]:
    """Return the operators whose id begins like this."""

    def names(admin: "Admin") -> Iterable[str]:
        from modelhost.cli import api

        answer = admin.ListOperators(api.ListOperatorsRequest(page_size=_MOST), timeout=_PATIENCE)
        return (operator.name for operator in answer.operators)

    return _beginning_with(incomplete, names)


def _beginning_with(incomplete: str, ask: "Callable[[Admin], Iterable[str]]") -> list[str]:
    with suppress(Exception):  # whatever it is, a shell in the middle of a line is no place to say so
        from modelhost.cli.connection import DEFAULT_ADDRESS, Session
        from modelhost.cli.render import short

        with Session(os.environ.get("MODELHOST_ADDRESS", DEFAULT_ADDRESS)) as session:
            return [name for name in map(short, ask(session.admin)) if name.startswith(incomplete)]
    return []
