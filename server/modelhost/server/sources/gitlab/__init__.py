"""A GitLab as a source, through its API.

    source.py           what a `Source` does
    access.py             whether it can be used: the server, the token, the namespace
    expiry.py               until when
    projects.py           finding and listing projects
    commits.py            refs, commits, trees, single files
    fetch.py              the bytes of many files: by
      archive.py            archive,
      lfs.py                Git LFS,
      content.py            and checked against their hashes
    client.py             python-gitlab: questions and answers
    transport.py          HTTP within limits
    errors.py             what a failure means
    place.py              where it is, and the limits

The token is in the requests' headers and in the memory of these objects, and nowhere else. Nothing is imported here:
python-gitlab takes half a second, and place.py and expiry.py are used without it.
"""
