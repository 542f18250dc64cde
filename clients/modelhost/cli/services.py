"""`modelhost service`: what applications call."""

from modelhost.cli import api
from modelhost.cli.arguments import ServiceName
from modelhost.cli.confirm import Yes, confirm
from modelhost.cli.connection import Session
from modelhost.cli.flags import verb
from modelhost.cli.grants import grants_table
from modelhost.cli.output import to_dict
from modelhost.cli.paging import whole
from modelhost.cli.render import moment, plural, short, styled


@verb
def list_(session: Session) -> None:
    """List the services: which deployment each is of, whether it serves, and who may call it.

    Examples:
      modelhost service list
      modelhost service list --json | jq -r '.services[] | select(.open) | .deployment'
    """
    answer = whole(session.admin.ListServices, api.ListServicesRequest())
    if session.as_json:
        session.out.document(answer)
        return
    grants = whole(session.admin.ListGrants, api.ListGrantsRequest()).grants
    rows = [
        (
            short(service.name),
            short(service.deployment),
            styled(_state(service)),
            str(service.revision or ""),
            _callers(service, sum(grant.service == service.name for grant in grants)),
            moment(service.create_time),
        )
        for service in answer.services
    ]
    session.out.table(
        ["SERVICE", "DEPLOYMENT", "STATE", "REVISION", "CALLERS", "CREATED"],
        rows,
        empty="no services yet: a deployment has one once it has run",
    )


def _state(service: "api.Service") -> str:
    return "serving" if service.serving else "not serving"


def _callers(service: "api.Service", grants: int) -> str:
    return "everybody" if service.open else plural(grants, "account") if grants else "nobody"


@verb
def show(session: Session, service: ServiceName) -> None:
    """Show a service, and who may call it how much.

    With --json, {"service": …, "grants": […]}.

    Examples:
      modelhost service show churn
      modelhost service show svc-23dac268efc42032
    """
    found = _find(session, service)
    grants = whole(session.admin.ListGrants, api.ListGrantsRequest(service=found.name)).grants
    if session.as_json:
        session.out.document({"service": to_dict(found), "grants": [to_dict(grant) for grant in grants]})
        return
    session.out.details(
        [
            ("service", (short(found.name), "bold")),
            ("deployment", short(found.deployment)),
            ("state", styled(_state(found))),
            ("revision", str(found.revision or "")),
            ("callers", _callers(found, len(grants))),
            ("created", moment(found.create_time)),
        ]
    )
    session.out.line()
    deployment = short(found.deployment)
    grants_table(session.out, grants, empty=f"no account was granted it: `modelhost grant ACCOUNT {deployment}`")


def _find(session: Session, name: str) -> "api.Service":
    """Return a service by its id, or by its deployment's name, which is told only where there is no such id."""
    try:
        return session.admin.GetService(api.GetServiceRequest(name=name))
    except api.NotFound:
        deployment = session.admin.GetDeployment(api.GetDeploymentRequest(name=name))
        return session.admin.GetService(api.GetServiceRequest(name=deployment.service))


@verb
def open_(session: Session, service: ServiceName, yes: Yes = False) -> None:
    """Let everybody call a service, without a token. Asks first on a terminal.

    Such calls have no limits but the deployment's own.

    Examples:
      modelhost service open churn
      modelhost service open churn --yes
    """
    confirm(f"let everybody who reaches the server call {short(service)}, without a token and without limits?", yes)
    changed = session.admin.OpenService(api.OpenServiceRequest(name=service))
    if session.as_json:
        session.out.document(changed)
    else:
        session.out.line(f"everybody may call {short(changed.deployment)} ({short(changed.name)}), without a token")


@verb
def close(session: Session, service: ServiceName) -> None:
    """Let nobody call a service but the accounts that it was granted to.

    Examples:
      modelhost service close churn
    """
    changed = session.admin.CloseService(api.CloseServiceRequest(name=service))
    if session.as_json:
        session.out.document(changed)
    else:
        name = short(changed.deployment)
        session.out.line(f"none but those whom it was granted may call {name} ({short(changed.name)})")
