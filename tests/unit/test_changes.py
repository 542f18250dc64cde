"""Those who watch a deployment are told that it has changed, and nobody else is."""

import asyncio

from modelhost.server.control.changes import Changes


async def test_a_change_wakes_everyone_who_watches_the_deployment() -> None:
    changes = Changes()

    with changes.watch("a") as one, changes.watch("a") as two, changes.watch("b") as other:
        changes.notify("a")

        assert (one.is_set(), two.is_set(), other.is_set()) == (True, True, False)


async def test_a_change_while_nobody_looks_is_not_missed() -> None:
    changes = Changes()

    with changes.watch("a") as changed:
        changed.clear()
        changes.notify("a")  # while the watcher reads the database, say
        async with asyncio.timeout(10):
            await changed.wait()


async def test_changes_in_quick_succession_are_one() -> None:
    changes = Changes()

    with changes.watch("a") as changed:
        changes.notify("a")
        changes.notify("a")
        changed.clear()

        assert not changed.is_set()


async def test_who_stops_watching_is_not_told_any_more_and_others_are() -> None:
    changes = Changes()

    with changes.watch("a") as stays:
        with changes.watch("a") as goes:
            pass
        changes.notify("a")

        assert stays.is_set()
        assert not goes.is_set()


async def test_nothing_is_kept_of_what_nobody_watches() -> None:
    changes = Changes()

    with changes.watch("a"):
        pass
    changes.notify("a")
    changes.notify("never heard of")

    with changes.watch("a") as changed:
        assert not changed.is_set()
