"""Git repositories as a source, through the git command.

    source.py    what a `Source` does
    mirror.py    the local copy that commits are read from
    command.py   running git, hardened
    output.py    what git prints
    place.py     which URLs there may be
    errors.py    what a failure means

Nothing of a repository is ever checked out: entries are listed and blobs are read, so no attribute or filter applies.
"""
