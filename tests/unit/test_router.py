"""Which services there are, and which of them are open."""

from modelhost.server.serving.router import Router


def test_a_service_that_is_known_is_opened_and_closed_by_nothing_but_that() -> None:
    router = Router()
    router.add("svc-1", "model", "uid", open_=True)
    assert router.has_open

    router.set_open("svc-1", False)
    router.add("svc-1", "model", "uid", open_=True)  # what somebody has read before it was closed

    assert not router.find("model").open
    assert not router.has_open


def test_open_services_are_counted_until_they_are_closed_or_forgotten() -> None:
    router = Router()
    for number in range(3):
        router.add(f"svc-{number}", f"model-{number}", f"uid-{number}")
        router.set_open(f"svc-{number}", True)
        router.set_open(f"svc-{number}", True)
    assert router.has_open

    router.set_open("svc-0", False)
    router.set_open("svc-0", False)
    router.remove("svc-1")
    router.remove("svc-1")
    assert router.has_open
    router.remove("svc-2")
    assert not router.has_open
    router.set_open("svc-2", True)
    assert not router.has_open
