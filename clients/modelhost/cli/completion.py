"""Names for the shell to complete. It gets none, rather than an error, where the server cannot be asked quickly."""

import os
from contextlib import suppress

_PATIENCE = 1.0


def complete_deployment(incomplete: str) -> list[str]:
    """Return the deployments whose name begins like this."""
    with suppress(Exception):  # whatever it is, a shell in the middle of a line is no place to say so
        from modelhost.cli import api
        from modelhost.cli.connection import DEFAULT_ADDRESS, Session
        from modelhost.cli.render import short

        with Session(os.environ.get("MODELHOST_ADDRESS", DEFAULT_ADDRESS)) as session:
            answer = session.admin.ListDeployments(api.ListDeploymentsRequest(page_size=1000), timeout=_PATIENCE)
        names = [short(deployment.name) for deployment in answer.deployments]
        return [name for name in names if name.startswith(incomplete)]
    return []
