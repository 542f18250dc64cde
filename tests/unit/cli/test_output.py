"""Words for people, and nothing but data for programs."""

import pytest

from modelhost.cli.output import Output, clean
from modelhost.cli.render import elapsed, size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, Zoë\tand tabs", "plain, Zoë\tand tabs"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("10%\r20%", "10%20%"),
        ("bell\x07 and \x9b31m", "bell and 31m"),
        ("\x1b", ""),
    ],
)
def test_what_steers_a_terminal_is_taken_out(text, expected):
    assert clean(text) == expected


def test_a_table_into_a_pipe_is_plain_and_never_cut(capsys):
    Output(as_json=False).table(["NAME", "NOTE"], [["a", "x" * 300], [("churn", "green"), ""], ["b", "two\nlines"]])
    assert capsys.readouterr().out.splitlines() == [
        "NAME   NOTE",
        "a      " + "x" * 300,
        "churn  -",
        "b      two lines",
    ]


def test_an_empty_table_into_a_pipe_has_its_headings(capsys):
    Output(as_json=False).table(["NAME", "NOTE"], [], empty="nothing yet")
    assert capsys.readouterr().out == "NAME  NOTE\n"


def test_details_without_a_value_are_left_out(capsys):
    Output(as_json=False).details([("name", "churn"), ("description", "")])
    assert capsys.readouterr().out == "name  churn\n"


def test_notes_are_for_people_warnings_for_all(capsys):
    out = Output(as_json=True)
    out.note("by the way")
    out.warn("careful")
    assert capsys.readouterr() == ("", '{"warning": "careful"}\n')
    out = Output(as_json=False)
    out.note("by the way")
    out.warn("careful")
    assert capsys.readouterr() == ("", "note: by the way\nwarning: careful\n")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.04, "0.0 s"), (9.5, "9.5 s"), (60, "60 s"), (120, "2 min"), (119.9, "2 min"), (200, "3 min 20 s")],
)
def test_time_is_rounded_for_people(seconds, expected):
    assert elapsed(seconds) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_500_000, "2.5 MB"), (5 * 10**15, "5000.0 TB")],
)
def test_bytes_are_rounded_for_people(count, expected):
    assert size(count) == expected
