"""Which Debian package has what a build has not found."""

import pytest

from modelhost.envs.missing import missing_from_system
from modelhost.envs.system_packages import debian_package


@pytest.mark.parametrize(
    ("missing", "package"),
    [
        ("ffi.h", "libffi-dev"),
        ("libxml/xmlversion.h", "libxml2-dev"),
        ("openssl/opensslv.h", "libssl-dev"),
        ("gsl/gsl_errno.h", "libgsl-dev"),
        ("Python.h", "python3.6-dev"),
        ("xml2-config", "libxml2-dev"),
        ("libcurl", "libcurl4-openssl-dev"),
        ("lapack", "liblapack-dev libblas-dev"),
        ("gfortran", "gfortran"),
        ("g++", "build-essential"),
        ("libgomp.so.1", "libgomp1"),
        ("libGL.so.1", "libgl1"),
        ("libhdf5.so", "libhdf5-dev"),
        ("libgfortran.so.3", ""),  # Debian 12 has only libgfortran.so.5
        ("nosuch.h", ""),
    ],
)
def test_a_missing_thing_has_its_package(missing: str, package: str) -> None:
    assert debian_package(missing, "3.6.15") == package


def test_a_program_that_is_not_known_may_be_one_that_the_build_does_without() -> None:
    assert missing_from_system(["sh: 1: nonesuch: not found"]) == ("", "", "")


def test_what_a_compiler_wants_is_missing_even_where_its_package_is_not_known() -> None:
    line = "x.c:1:10: fatal error: nosuch.h: No such file or directory"

    assert missing_from_system([line, "compilation terminated."]) == (line, "nosuch.h", "")
