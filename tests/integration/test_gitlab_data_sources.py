"""Data sources in a GitLab, as operators register, change and test them."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modelhost.client import ModelHostError
from modelhost.v1 import data_source_pb2 as pb
from tests.checks import refused
from tests.git_repos import Repo
from tests.gitlab_operators import get, register, try_out, update
from tests.gitlab_sources import FILES
from tests.gitlab_stand_in import Certificate, GitLab, Project
from tests.running import RunningServer

PATH = "energy/forecasting/turbine"


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitLab]:
    with GitLab(tmp_path / "gitlab") as running:
        yield running


@pytest.fixture
def project(gitlab: GitLab) -> Project:
    return gitlab.project(PATH)


def field_of(error: ModelHostError) -> str:
    return error.metadata["field"]


def in_days(days: int) -> Any:
    return (datetime.now(UTC) + timedelta(days=days)).date()


class TestRegistering:
    def test_shows_the_place_and_never_the_token(self, server: RunningServer, gitlab: GitLab, name: str) -> None:
        made = register(server, name, gitlab, url=f"{gitlab.url}/", namespace="/energy/", insecure_skip_verify=True)

        assert (made.gitlab.url, made.gitlab.namespace) == (gitlab.url, "energy")
        assert made.gitlab.insecure_skip_verify
        assert made.gitlab.token == ""
        assert not made.gitlab.HasField("token_expire_time")
        assert list(made.warnings) == []
        assert get(server, name) == made

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"url": ""}, "url"),
            ({"url": "gitlab.example.com"}, "url"),
            ({"url": "https://ada:hunter2@gitlab.example.com"}, "url"),
            ({"token": ""}, "token"),
            ({"token": "glpat hunter2"}, "token"),
            ({"namespace": "../hunter2"}, "namespace"),
            ({"ca_certificates": "hunter2"}, "ca_certificates"),
        ],
    )
    def test_says_which_field_is_wrong_and_repeats_no_secret(
        self, server: RunningServer, gitlab: GitLab, name: str, fields: dict[str, str], field: str
    ) -> None:
        with refused("FIELD_INVALID") as caught:
            register(server, name, gitlab, **fields)

        assert field_of(caught.value) == f"data_source.gitlab.{field}"
        assert field == "namespace" or "hunter2" not in str(caught.value.__cause__)
        with refused("DATA_SOURCE_NOT_FOUND"):
            get(server, name)

    def test_can_only_be_tried(self, server: RunningServer, gitlab: GitLab, name: str) -> None:
        request = pb.CreateDataSourceRequest(
            data_source_id=name,
            data_source=pb.DataSource(gitlab=pb.GitLabLocation(url=gitlab.url, token="glpat-x")),
            validate_only=True,
        )

        assert server.client.admin.CreateDataSource(request).gitlab.url == gitlab.url
        with refused("DATA_SOURCE_NOT_FOUND"):
            get(server, name)


class TestUpdating:
    @pytest.fixture
    def there(self, server: RunningServer, gitlab: GitLab, project: Project, name: str) -> str:
        """A data source whose token is known to expire soon."""
        register(server, name, gitlab, namespace="energy", token=gitlab.token(expires=in_days(9)))
        assert try_out(server, name).ok
        return name

    @pytest.mark.parametrize("mask", [["description"], []])
    def test_a_description_alone_changes_nothing_else(self, server: RunningServer, there: str, mask: list[str]) -> None:
        before = get(server, there)

        after = update(server, there, mask=mask, description="of the team")

        assert after.description == "of the team"
        assert after.gitlab == before.gitlab
        assert after.etag != before.etag
        assert try_out(server, there).ok

    def test_an_empty_mask_changes_what_is_set(self, server: RunningServer, there: str) -> None:
        after = update(server, there, namespace="energy/forecasting")

        assert after.gitlab.namespace == "energy/forecasting"
        assert after.gitlab.HasField("token_expire_time")
        assert "energy/forecasting has 1 project" in try_out(server, there).message

    def test_a_mask_clears_what_is_not_set(self, server: RunningServer, there: str) -> None:
        update(server, there, insecure_skip_verify=True)
        after = update(server, there, mask=["gitlab.namespace", "gitlab.insecure_skip_verify"])

        assert (after.gitlab.namespace, after.gitlab.insecure_skip_verify) == ("", False)

    def test_all_of_the_place_can_be_given_at_once_and_the_token_stays(
        self, server: RunningServer, gitlab: GitLab, there: str
    ) -> None:
        after = update(server, there, mask=["gitlab"], url=gitlab.url)

        assert (after.gitlab.url, after.gitlab.namespace) == (gitlab.url, "")
        assert after.gitlab.HasField("token_expire_time")
        assert try_out(server, there).ok

    def test_what_is_shown_can_be_sent_back(self, server: RunningServer, there: str) -> None:
        shown = get(server, there)

        after = server.client.admin.UpdateDataSource(pb.UpdateDataSourceRequest(data_source=shown))

        assert after.gitlab == shown.gitlab
        assert try_out(server, there).ok

    def test_a_new_token_is_used_and_what_was_known_of_the_old_one_forgotten(
        self, server: RunningServer, gitlab: GitLab, there: str
    ) -> None:
        token = gitlab.token()

        after = update(server, there, token=token)

        assert after.gitlab.token == ""
        assert not after.gitlab.HasField("token_expire_time")
        assert list(after.warnings) == []
        gitlab.requests.clear()
        assert try_out(server, there).ok
        assert {request.token for request in gitlab.requests} == {token}

    def test_the_old_token_never_goes_to_another_host(
        self, server: RunningServer, gitlab: GitLab, there: str, tmp_path: Path
    ) -> None:
        with GitLab(tmp_path / "other") as other:
            for mask in ([], ["gitlab.url"], ["gitlab"]):
                with refused("FIELD_INVALID") as caught:
                    update(server, there, mask=mask, url=other.url)
                assert field_of(caught.value) == "data_source.gitlab.token"
                assert "give the token too when the url changes" in caught.value.message
            assert try_out(server, there).ok
            assert other.requests == []

            assert update(server, there, url=other.url, token=other.token()).gitlab.url == other.url
            assert try_out(server, there).reason == "NAMESPACE_NOT_FOUND"

    def test_within_the_host_the_token_stays(self, server: RunningServer, gitlab: GitLab, there: str) -> None:
        after = update(server, there, url=f"{gitlab.url}/gitlab")

        assert after.gitlab.url == f"{gitlab.url}/gitlab"
        assert after.gitlab.HasField("token_expire_time")

    @pytest.mark.parametrize("mask", [["git.url"], ["git"], []])
    def test_the_kind_of_place_stays(self, server: RunningServer, there: str, mask: list[str]) -> None:
        with refused("FIELD_INVALID") as caught:
            server.client.admin.UpdateDataSource(
                pb.UpdateDataSourceRequest(
                    data_source=pb.DataSource(name=there, git=pb.GitLocation(url="/repos")), update_mask={"paths": mask}
                )
            )

        assert field_of(caught.value) == "data_source.git"
        assert try_out(server, there).ok

    @pytest.mark.parametrize(
        "path", ["name", "etag", "warnings", "gitlab.token_expire_time", "gitlab.x", "location", "*"]
    )
    def test_a_mask_names_fields_that_are_there_and_not_output_only(
        self, server: RunningServer, there: str, path: str
    ) -> None:
        with refused("FIELD_INVALID") as caught:
            update(server, there, mask=[path], url="https://gitlab.example.com")

        assert field_of(caught.value) == "update_mask"

    def test_one_that_is_stale_is_refused(self, server: RunningServer, there: str) -> None:
        etag = get(server, there).etag
        update(server, there, etag=etag, description="first")

        with refused("ETAG_MISMATCH"):
            update(server, there, etag=etag, description="second")

        assert get(server, there).description == "first"

    def test_a_repeat_gets_the_first_answer(self, server: RunningServer, there: str) -> None:
        def call(description: str) -> pb.DataSource:
            return server.client.admin.UpdateDataSource(
                pb.UpdateDataSourceRequest(
                    data_source=pb.DataSource(name=there, description=description),
                    request_id="5b0f4d0e-7c35-4a2a-9a31-6a0d8f5e1c11",
                )
            )

        first = call("first")

        assert call("first") == first
        assert get(server, there) == first
        with refused("REQUEST_ID_REUSED"):
            call("second")

    def test_needs_a_place_in_the_end(self, server: RunningServer, there: str) -> None:
        with refused("FIELD_INVALID") as caught:
            update(server, there, mask=["gitlab.url"])

        assert field_of(caught.value) == "data_source.gitlab.url"

    def test_goes_for_git_too(self, server: RunningServer, source: str, name: str, tmp_path: Path) -> None:
        other = Repo(tmp_path / "other")
        commit = other.commit({"main.py": b""})
        wanted = pb.DataSource(name=source, git=pb.GitLocation(url=str(other.path)))

        assert server.client.admin.UpdateDataSource(pb.UpdateDataSourceRequest(data_source=wanted)).git == wanted.git

        assert server.client.admin.ListRefs(pb.ListRefsRequest(data_source=source)).refs[0].commit == commit


class TestTesting:
    def test_says_what_is_there(self, server: RunningServer, gitlab: GitLab, project: Project, name: str) -> None:
        project.repo.commit(FILES)
        register(server, name, gitlab, namespace="energy")

        whole, one = try_out(server, name), try_out(server, name, "forecasting/turbine")

        assert whole.ok
        assert whole.message == f"{gitlab.url} is GitLab 18.2.1-ee and knows ada (Ada Lovelace); energy has 1 project"
        assert (one.ok, one.default_branch, one.ref_count) == (True, "main", 1)
        assert (list(whole.warnings), list(one.warnings)) == ([], [])

    def test_a_token_that_expires_soon_is_warned_of_and_so_is_its_data_source_from_then_on(
        self, server: RunningServer, gitlab: GitLab, name: str
    ) -> None:
        day = in_days(9)
        register(server, name, gitlab, token=gitlab.token(expires=day))
        etag = get(server, name).etag

        [warning] = try_out(server, name).warnings

        assert warning.startswith(f"the token expires on {day}, in ")
        shown = get(server, name)
        assert shown.gitlab.token_expire_time.ToDatetime().date() == day
        assert list(shown.warnings) == [warning]
        assert shown.etag == etag, "nobody has changed it"
        listed = server.client.admin.ListDataSources(pb.ListDataSourcesRequest(page_size=1000)).data_sources
        assert [list(each.warnings) for each in listed if each.name == shown.name] == [[warning]]

    @pytest.mark.parametrize(
        ("change", "reason", "message"),
        [
            (lambda gitlab: {"token": "glpat-nobodys"}, "SOURCE_ACCESS_DENIED", "{url} does not know the token"),
            (
                lambda gitlab: {"token": gitlab.token(expires=in_days(-1))},
                "SOURCE_TOKEN_EXPIRED",
                "the token for {url} has expired",
            ),
            (lambda gitlab: {"token": gitlab.token(revoked=True)}, "SOURCE_TOKEN_EXPIRED", "was revoked"),
            (
                lambda gitlab: {"token": gitlab.token(("read_api",))},
                "SOURCE_ACCESS_DENIED",
                "the token for {url} lacks read_repository",
            ),
            (
                lambda gitlab: {"namespace": "enrgy"},
                "NAMESPACE_NOT_FOUND",
                "{url} has no group or user enrgy that the token may see",
            ),
            (
                lambda gitlab: {"url": "http://127.0.0.1:1"},
                "SOURCE_UNREACHABLE",
                "http://127.0.0.1:1 refuses the connection: nothing listens there",
            ),
        ],
        ids=["unknown", "expired", "revoked", "scope", "namespace", "unreachable"],
    )
    def test_says_what_is_wrong_in_a_sentence(
        self,
        server: RunningServer,
        gitlab: GitLab,
        name: str,
        change: Callable[[GitLab], dict[str, Any]],
        reason: str,
        message: str,
    ) -> None:
        register(server, name, gitlab, **change(gitlab))

        answer = try_out(server, name)

        assert (answer.ok, answer.reason) == (False, reason)
        assert message.format(url=gitlab.url) in answer.message

    def test_a_certificate_of_an_own_authority_has_to_be_given(
        self, server: RunningServer, name: str, tmp_path: Path
    ) -> None:
        with GitLab(tmp_path / "tls", tls=True) as gitlab:
            register(server, name, gitlab)
            answer = try_out(server, name)
            assert (answer.ok, answer.reason) == (False, "SOURCE_CERTIFICATE_INVALID")
            assert "is from no authority that is trusted here" in answer.message
            assert gitlab.requests == []

            update(server, name, ca_certificates=gitlab.ca_pem)

            assert try_out(server, name).ok

    def test_any_certificate_will_do_if_it_is_not_checked(
        self, server: RunningServer, name: str, tmp_path: Path
    ) -> None:
        with GitLab(tmp_path / "tls", tls=Certificate.SELF_SIGNED) as gitlab:
            register(server, name, gitlab, insecure_skip_verify=True)

            assert try_out(server, name).ok
