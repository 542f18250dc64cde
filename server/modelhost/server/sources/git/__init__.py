"""Git repositories as a source, through the git command.

    source.py    what a `Source` does
    mirror.py    the local copy that commits are read from
    remote.py    git with a repository elsewhere, at addresses that were checked
      redirects.py   where a host says that it is
      proxies.py     which proxy is in between
    command.py   running git, hardened
    output.py    what git prints
    place.py     which URLs there may be
    errors.py    what a failure means

Nothing of a repository is ever checked out: entries are listed and blobs are read, so no attribute or filter applies.
"""
