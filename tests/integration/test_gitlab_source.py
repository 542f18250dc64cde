"""A GitLab's projects, refs, trees and files, and what it says when it is asked whether it can be used."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modelhost.envs.process import Job
from modelhost.server.errors import InvalidRequest
from modelhost.server.sources import EntryKind
from modelhost.server.sources.gitlab.source import GitLabSource
from tests.git_repos import Submodule
from tests.gitlab_sources import CONTENTS, FILES, a_source, contents, refusal
from tests.gitlab_stand_in import Answer, GitLab, Instead, Project
from tests.gitlab_stand_in.answers import json_answer

PATH = "energy/forecasting/turbine"


@pytest.fixture
def gitlab(tmp_path: Path) -> Iterator[GitLab]:
    with GitLab(tmp_path / "gitlab") as running:
        yield running


@pytest.fixture
def project(gitlab: GitLab) -> Project:
    return gitlab.project(PATH)


@pytest.fixture
def source(gitlab: GitLab, tmp_path: Path) -> GitLabSource:
    return a_source(gitlab, tmp_path)


def in_days(days: int) -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=days)


class TestWhetherItCanBeUsed:
    def test_says_who_it_is_and_what_is_seen(self, gitlab: GitLab, source: GitLabSource, project: Project) -> None:
        report = source.test("", Job())
        assert report.message == (
            f"{gitlab.url} is GitLab 18.2.1-ee and knows ada (Ada Lovelace), who is a member of 1 project"
        )
        assert (report.default_branch, report.ref_count, report.warnings, report.token_expires) == ("", 0, (), None)

    def test_a_bot_with_a_namespace_and_a_project(self, gitlab: GitLab, project: Project, tmp_path: Path) -> None:
        project.repo.commit(FILES)
        project.repo.tag("v1")
        gitlab.project("energy/forecasting/solar/roof")
        gitlab.project("energy/billing")
        token = gitlab.token(namespace="energy/forecasting")
        report = a_source(gitlab, tmp_path, token=token, namespace="/energy/forecasting/").test("turbine", Job())
        assert " and knows the bot group_" in report.message
        assert report.message.endswith(
            "; energy/forecasting has 2 projects; energy/forecasting/turbine can be read: 1 branch, 1 tag;"
            " the default branch is main"
        )
        assert (report.default_branch, report.ref_count) == ("main", 2)

    def test_a_project_without_commits(self, source: GitLabSource, project: Project) -> None:
        report = source.test(PATH, Job())
        assert report.message.endswith("can be read: 0 branches, 0 tags, and no commits yet")

    def test_warns_of_a_token_that_expires_within_30_days(self, gitlab: GitLab, tmp_path: Path) -> None:
        soon, later = in_days(12), in_days(40)
        report = a_source(gitlab, tmp_path, token=gitlab.token(expires=soon.date())).test("", Job())
        assert report.warnings == (
            f"the token expires on {soon.date()}, in 12 days: make a new one in GitLab and give it to the data source",
        )
        assert report.token_expires == soon.timestamp()
        report = a_source(gitlab, tmp_path, token=gitlab.token(expires=later.date())).test("", Job())
        assert (report.warnings, report.token_expires) == ((), later.timestamp())

    def test_a_gitlab_that_cannot_tell_of_tokens_is_good_enough(self, gitlab: GitLab, source: GitLabSource) -> None:
        for status in (404, 400):
            gitlab.faults.once("*/self", Instead(json_answer({"message": "no"}, status)))
            assert source.test("", Job()).token_expires is None

    @pytest.mark.parametrize(
        ("scopes", "lacking"),
        [
            (("read_user",), "read_api and read_repository"),
            (("read_api",), "read_repository"),
            (("read_repository",), "read_api"),
        ],
    )
    def test_names_the_scope_that_a_token_lacks(
        self, gitlab: GitLab, tmp_path: Path, scopes: tuple[str, ...], lacking: str
    ) -> None:
        with refusal() as refused:
            a_source(gitlab, tmp_path, token=gitlab.token(scopes)).test("", Job())
        assert refused.reason == "SOURCE_ACCESS_DENIED"
        assert refused.message == f"the token for {gitlab.url} lacks {lacking}"

    def test_the_scope_api_includes_the_others(self, gitlab: GitLab, tmp_path: Path) -> None:
        assert a_source(gitlab, tmp_path, token=gitlab.token(("api",))).test("", Job())

    def test_an_unknown_token(self, gitlab: GitLab, tmp_path: Path) -> None:
        with refusal() as refused:
            a_source(gitlab, tmp_path, token="glpat-unknown").test("", Job())
        assert (refused.reason, refused.message) == (
            "SOURCE_ACCESS_DENIED", f"{gitlab.url} does not know the token",
        )  # fmt: skip

    def test_an_expired_token_and_the_date_where_it_is_known(self, gitlab: GitLab, tmp_path: Path) -> None:
        expired = in_days(-2)
        token = gitlab.token(expires=expired.date())
        with refusal() as refused:
            a_source(gitlab, tmp_path, token=token).test("", Job())
        assert (refused.reason, refused.message) == (
            "SOURCE_TOKEN_EXPIRED", f"the token for {gitlab.url} has expired",
        )  # fmt: skip
        with refusal() as refused:
            a_source(gitlab, tmp_path, token=token, token_expires=expired.timestamp()).test("", Job())
        assert refused.message.endswith(f"has expired on {expired.date()}")

    def test_a_revoked_token(self, gitlab: GitLab, tmp_path: Path) -> None:
        with refusal() as refused:
            a_source(gitlab, tmp_path, token=gitlab.token(revoked=True)).test("", Job())
        assert refused.reason == "SOURCE_TOKEN_EXPIRED"
        assert refused.message.endswith("was revoked")

    def test_a_guest_may_not_read_code(self, gitlab: GitLab, project: Project, tmp_path: Path) -> None:
        project.repo.commit(FILES)
        with refusal() as refused:
            a_source(gitlab, tmp_path, token=gitlab.token(guest=True)).test(PATH, Job())
        assert refused.reason == "SOURCE_ACCESS_DENIED"
        assert "Reporter" in refused.error.hint

    def test_an_unknown_namespace(self, gitlab: GitLab, project: Project, tmp_path: Path) -> None:
        with refusal() as refused:
            a_source(gitlab, tmp_path, namespace="energie").test("", Job())
        assert refused.reason == "NAMESPACE_NOT_FOUND"
        assert refused.message == f"{gitlab.url} has no group or user energie that the token may see"

    def test_a_project_in_the_place_of_a_namespace(self, gitlab: GitLab, project: Project, tmp_path: Path) -> None:
        with refusal() as refused:
            a_source(gitlab, tmp_path, namespace=PATH).test("", Job())
        assert refused.reason == "NAMESPACE_NOT_FOUND"
        assert refused.error.hint == "It is a project: register energy/forecasting as the namespace."

    def test_a_users_namespace(self, gitlab: GitLab, tmp_path: Path) -> None:
        gitlab.project("ada/experiments")
        report = a_source(gitlab, tmp_path, namespace="ada").test("experiments", Job())
        assert "; ada has 1 project; ada/experiments can be read" in report.message

    def test_an_unknown_project_and_the_one_that_may_be_meant(
        self, gitlab: GitLab, source: GitLabSource, project: Project
    ) -> None:
        with refusal() as refused:
            source.test("energy/forecasting/turbin", Job())
        assert refused.reason == "PROJECT_NOT_FOUND"
        assert refused.message == (
            f"{gitlab.url} has no project energy/forecasting/turbin that the token may see;"
            ' is "energy/forecasting/turbine" meant?'
        )

    def test_a_gitlab_below_a_path(self, tmp_path: Path) -> None:
        with GitLab(tmp_path / "gitlab", prefix="/git") as gitlab:
            project = gitlab.project(PATH)
            commit = project.repo.commit(FILES | {"large": project.lfs_object(b"x" * 10)})
            source = a_source(gitlab, tmp_path, url=f"{gitlab.url}/")
            assert source.test(PATH, Job()).default_branch == "main"
            assert contents(source, PATH, commit) == CONTENTS | {"large": b"x" * 10}


class TestProjects:
    def paths(self, source: GitLabSource, search: str = "", limit: int = 1000) -> list[list[str]]:
        """Every page."""
        pages, after = [], ""
        while True:
            page = source.projects(search, after, limit, Job())
            pages.append([project.path for project in page.projects])
            after = page.next
            if not after:
                return pages

    def test_are_listed_with_what_is_known_of_them(self, source: GitLabSource, project: Project) -> None:
        project.repo.commit(FILES)
        (found,) = source.projects("", "", 10, Job()).projects
        assert (found.id, found.path, found.title, found.default_branch) == (str(project.id), PATH, "turbine", "main")
        assert found.active == project.created.timestamp()

    @pytest.mark.parametrize("namespace", ["", "all", "ada"])
    def test_come_in_pages_that_new_and_archived_ones_do_not_disturb(
        self, gitlab: GitLab, tmp_path: Path, namespace: str
    ) -> None:
        front = namespace or "all"
        names = [f"{front}/p{number}" for number in range(7)]
        for name in names:
            gitlab.project(name)
        source = a_source(gitlab, tmp_path, namespace=namespace)
        shown = [name.removeprefix(f"{namespace}/") if namespace else name for name in names]
        assert self.paths(source) == [shown]
        assert self.paths(source, limit=3) == [shown[:3], shown[3:6], shown[6:]]
        assert self.paths(source, limit=7) == [shown]
        first = source.projects("", "", 3, Job())
        next(each for each in gitlab.world.projects if each.path == names[1]).archived = True
        gitlab.project(f"{front}/new")
        second = source.projects("", first.next, 3, Job())
        assert [project.path for project in second.projects] == shown[3:6]

    def test_of_a_large_group_are_continued_where_the_page_before_ended(self, gitlab: GitLab, tmp_path: Path) -> None:
        for number in range(108):
            gitlab.project(f"all/p{number}")
        source = a_source(gitlab, tmp_path, namespace="all")
        first = source.projects("", "", 104, Job())
        before = len(gitlab.requests)
        second = source.projects("", first.next, 104, Job())
        assert [project.path for project in second.projects] == ["p104", "p105", "p106", "p107"]
        assert {request.query.get("page") for request in gitlab.requests[before:]} == {None, "2"}
        for project in gitlab.world.projects[:50]:
            project.archived = True
        assert source.projects("", first.next, 104, Job()) == second

    def test_are_found_by_name_in_sub_groups_too(self, gitlab: GitLab, tmp_path: Path) -> None:
        for path in ("energy/turbine", "energy/forecasting/Turbine-2", "energy/forecasting/solar", "other/turbine"):
            gitlab.project(path)
        gitlab.world.projects[2].description = "not a turbine"
        source = a_source(gitlab, tmp_path, namespace="energy")
        assert self.paths(source, "turbine") == [["turbine", "forecasting/Turbine-2"]]
        assert self.paths(source, "nothing") == [[]]

    def test_an_after_that_no_page_said_is_refused(self, source: GitLabSource) -> None:
        with pytest.raises(InvalidRequest):
            source.projects("", "1 or 2", 3, Job())

    def test_are_only_those_that_the_token_sees(self, gitlab: GitLab, project: Project, tmp_path: Path) -> None:
        gitlab.project("other/model")
        public = gitlab.project("public/model", public=True)
        commit = public.repo.commit(FILES)
        source = a_source(gitlab, tmp_path, token=gitlab.token(namespace=PATH))
        assert self.paths(source) == [[PATH]]
        assert source.resolve("public/model", "", Job()) == commit
        with refusal() as refused:
            source.resolve("other/model", "", Job())
        assert refused.reason == "PROJECT_NOT_FOUND"

    def test_are_named_by_path_or_by_number_also_after_a_rename(
        self, gitlab: GitLab, project: Project, tmp_path: Path
    ) -> None:
        commit = project.repo.commit(FILES)
        source = a_source(gitlab, tmp_path, namespace="energy/forecasting")
        for name in ("turbine", "TURBINE", str(project.id)):
            assert source.resolve(name, "main", Job()) == commit
        project.rename("energy/forecasting/windmill")
        for name in ("turbine", "windmill", str(project.id)):
            assert contents(a_source(gitlab, tmp_path, namespace="energy/forecasting"), name, commit) == CONTENTS

    def test_one_that_left_the_namespace_is_not_of_the_place(
        self, gitlab: GitLab, project: Project, tmp_path: Path
    ) -> None:
        project.repo.commit(FILES)
        project.rename("billing/turbine")
        source = a_source(gitlab, tmp_path, namespace="energy/forecasting")
        for name in ("turbine", str(project.id)):
            with refusal() as refused:
                source.resolve(name, "main", Job())
            assert refused.reason == "PROJECT_NOT_FOUND"
            assert refused.message.endswith("is billing/turbine today, which is not in energy/forecasting")

    def test_a_renamed_one_of_a_gitlab_that_is_wrong_about_its_address(
        self, gitlab: GitLab, project: Project, source: GitLabSource
    ) -> None:
        commit = project.repo.commit(FILES)
        project.rename("energy/windmill")
        gitlab.faults.once(
            "*/projects/energy%2Fforecasting%2Fturbine", Instead(moved(f"https://inside/api/v4/projects/{project.id}"))
        )
        assert source.resolve(PATH, "", Job()) == commit
        assert all(request.host == "gitlab" for request in gitlab.requests)

    def test_one_has_to_be_named(self, source: GitLabSource) -> None:
        with refusal() as refused:
            source.refs("", Job())
        assert refused.reason == "PROJECT_NOT_FOUND"
        for bad in ("../other", "a//b", "/a"):
            with pytest.raises(InvalidRequest):
                source.refs(bad, Job())


class TestRefs:
    def test_are_branches_and_tags_by_name(self, source: GitLabSource, project: Project) -> None:
        first = project.repo.commit(FILES)
        other = project.repo.commit({"x": b"1"}, branch="feature/über+x")
        project.repo.tag("v1", first)
        project.repo.tag("v2", first, message="an object of its own")
        found = [(ref.name, ref.is_tag, ref.commit, ref.is_default) for ref in source.refs(PATH, Job())]
        assert found == [
            ("feature/über+x", False, other, False),
            ("main", False, first, True),
            ("v1", True, first, False),
            ("v2", True, first, False),
        ]

    def test_are_all_listed_however_many(self, source: GitLabSource, project: Project) -> None:
        commit = project.repo.commit(FILES)
        lines = "".join(
            f"create refs/heads/b{n:03d} {commit}\ncreate refs/tags/t{n:03d} {commit}\n" for n in range(250)
        )
        project.repo.git("update-ref", "--stdin", stdin=lines.encode())
        assert len({(ref.name, ref.is_tag) for ref in source.refs(PATH, Job())}) == 501

    def test_resolve_as_in_a_git_source(self, source: GitLabSource, project: Project) -> None:
        repo = project.repo
        first = repo.commit(FILES)
        second = repo.commit({"x": b"2"})
        repo.git("branch", "both", first)
        repo.tag("both", second)
        repo.git("branch", second[:7], first)
        tag_object = repo.tag("annotated", first, message="an object of its own")
        repo.git("branch", "refs/heads/odd", first)
        expected = {
            "": second,
            "main": second,
            "refs/heads/main": second,
            "both": first,
            "refs/tags/both": second,
            second[:7]: first,
            second[:8]: second,
            second: second,
            second.upper(): second,
            "annotated": first,
            tag_object: first,
            "refs/heads/odd": first,
        }
        assert {ref: source.resolve(PATH, ref, Job()) for ref in expected} == expected

    @pytest.mark.parametrize("ref", ["mian", "0" * 40, "deadbeef", "main~1", "HEAD^{tree}", "refs/heads/v1", "../main"])
    def test_what_is_not_there(self, source: GitLabSource, project: Project, ref: str) -> None:
        project.repo.commit(FILES)
        project.repo.tag("v1")
        with refusal() as refused:
            source.resolve(PATH, ref, Job())
        assert refused.reason == "REF_NOT_FOUND"
        assert ref in refused.message

    def test_a_near_one_is_suggested(self, source: GitLabSource, project: Project) -> None:
        project.repo.commit(FILES)
        with refusal() as refused:
            source.resolve(PATH, "mian", Job())
        assert refused.message.endswith('; is "main" meant?')

    def test_an_empty_project_has_none(self, source: GitLabSource, project: Project) -> None:
        assert source.refs(PATH, Job()) == []
        with refusal() as refused:
            source.resolve(PATH, "", Job())
        assert refused.message.endswith("has no default branch, or no commits yet")


class TestTrees:
    def test_have_every_entry_with_its_kind_and_hash(self, source: GitLabSource, project: Project) -> None:
        commit = project.repo.commit(FILES | {"vendor": Submodule()})
        entries = {entry.path: entry for entry in source.tree(PATH, commit, Job())}
        assert sorted(entries) == sorted([*FILES, "vendor"]) == list(entries)
        kinds = {path: entry.kind for path, entry in entries.items() if entry.kind is not EntryKind.FILE}
        assert kinds == {
            "latest": EntryKind.LINK, "run.sh": EntryKind.EXECUTABLE, "vendor": EntryKind.SUBMODULE,
        }  # fmt: skip
        assert all(entries[path].blob == project.repo.blob(content) for path, content in CONTENTS.items())

    def test_of_many_pages(self, gitlab: GitLab, source: GitLabSource, project: Project) -> None:
        files = {f"{number % 7}/{number}": b"%d" % number for number in range(250)}
        commit = project.repo.commit(files)
        assert [entry.path for entry in source.tree(PATH, commit, Job())] == sorted(files)
        asked = gitlab.requests_to("*/repository/tree")
        assert len(asked) == 3
        assert all(request.query["pagination"] == "keyset" for request in asked)

    def test_are_empty_where_the_commit_is(self, source: GitLabSource, project: Project) -> None:
        project.repo.commit(FILES)
        empty = project.repo.commit_tree(project.repo.tree([]))
        assert source.tree(PATH, empty, Job()) == []

    def test_of_an_unknown_commit(self, source: GitLabSource, project: Project) -> None:
        project.repo.commit(FILES)
        with refusal() as refused:
            source.tree(PATH, "1" * 40, Job())
        assert refused.reason == "REF_NOT_FOUND"


class TestFiles:
    def test_are_read_from_their_beginning(self, source: GitLabSource, project: Project) -> None:
        pointer = project.lfs_object(b"large")
        data = random.Random(1).randbytes(100_000)
        commit = project.repo.commit(FILES | {"large.bin": pointer, "data": data})
        for path, content in (CONTENTS | {"large.bin": pointer}).items():
            read = source.read_file(PATH, commit, path, 1000, Job())
            assert (read.data, read.size) == (content, len(content))
        read = source.read_file(PATH, commit, "data", 1000, Job())
        assert (read.data, read.size) == (data[:1000], len(data))

    @pytest.mark.parametrize("path", ["nothing", "lib", "lib/nothing"])
    def test_what_is_no_file(self, source: GitLabSource, project: Project, path: str) -> None:
        commit = project.repo.commit(FILES)
        with refusal() as refused:
            source.read_file(PATH, commit, path, 1000, Job())
        assert refused.reason == "PATH_NOT_FOUND"

    def test_of_an_unknown_commit(self, source: GitLabSource, project: Project) -> None:
        project.repo.commit(FILES)
        with refusal() as refused:
            source.read_file(PATH, "1" * 40, "main.py", 1000, Job())
        assert refused.reason == "REF_NOT_FOUND"


def moved(url: str) -> Answer:
    return Answer(301, b"", (("Location", url),), content_type="text/plain")
