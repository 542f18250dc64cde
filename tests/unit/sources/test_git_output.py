"""What is read from what git prints."""

from modelhost.server.sources import SourceRef
from modelhost.server.sources.git.output import parse_refs

ONE, TWO, TAG = "1" * 40, "2" * 40, "3" * 40


def test_refs_are_branches_and_tags_with_annotated_tags_peeled() -> None:
    text = (
        f"ref: refs/heads/dev\tHEAD\n{TWO}\tHEAD\n{TWO}\trefs/heads/dev\n{ONE}\trefs/heads/a/b\n"
        f"{ONE}\trefs/pull/1/head\n{TAG}\trefs/tags/v1\n{ONE}\trefs/tags/v1^{{}}\n"
    )
    assert parse_refs(text) == (
        [SourceRef("a/b", False, ONE), SourceRef("dev", False, TWO, is_default=True), SourceRef("v1", True, ONE)],
        TWO,
    )


def test_a_host_that_does_not_name_the_default_branch_is_guessed_at_as_git_does() -> None:
    def default(*branches: str) -> list[str]:
        text = f"{ONE}\tHEAD\n" + "".join(f"{ONE}\trefs/heads/{branch}\n" for branch in branches)
        return [ref.name for ref in parse_refs(text)[0] if ref.is_default]

    assert default("a", "main", "master") == ["main"]
    assert default("a", "master") == ["master"]
    assert default("a") == ["a"]
    assert default() == []


def test_a_repository_without_commits_has_no_refs() -> None:
    assert parse_refs("") == ([], "")
