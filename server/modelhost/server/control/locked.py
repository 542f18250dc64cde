"""What was locked for a revision is kept in the database, so that its environment can be built again, on any host."""

import asyncio
from dataclasses import replace

from modelhost.envs import Environment, EnvironmentSpec, EnvironmentStore, Interpreter, Job, Requirements
from modelhost.server.resources import EnvironmentLock
from modelhost.server.store import locks
from modelhost.server.store.database import Database, Transaction


def lock_of(environment: Environment) -> EnvironmentLock:
    """What to remember of an environment."""
    interpreter = environment.interpreter
    return EnvironmentLock(
        environment.digest,
        interpreter.name,
        interpreter.version,
        interpreter.platform,
        environment.repositories,
        environment.lock,
    )


def specify(
    environments: EnvironmentStore,
    interpreter: Interpreter,
    requirements: Requirements,
    lock: EnvironmentLock | None,
    job: Job,
) -> list[EnvironmentSpec]:
    """What is to be built: the spec, and, where there is a lock, the one that its environment may lie apart under."""
    spec = environments.specify(interpreter, requirements)
    if lock is None:
        return [spec]
    if (lock.version, lock.platform) != (interpreter.version, interpreter.platform):
        job.say(
            f"warning: the revision was built for {lock.runtime} {lock.version} ({lock.platform}), and this host has"
            f" {interpreter.version} ({interpreter.platform}): it gets the same packages, but not the same environment"
        )
    spec = replace(spec, repositories=lock.repositories or spec.repositories)
    return [spec, replace(spec, apart=lock.packages)]


async def complete(database: Database, environments: EnvironmentStore) -> None:
    """Store the locks that an earlier version of the server did not, from the manifests on disk."""

    def store(tx: Transaction) -> None:
        missing = locks.missing(tx)
        for environment in present:
            if environment.digest in missing:
                locks.insert(tx, lock_of(environment))

    if await database.run(locks.missing):
        present = await asyncio.to_thread(environments.list)
        await database.run(store)
