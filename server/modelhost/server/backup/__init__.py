"""Backups: a server's database and key in one file, taken while it runs, and a state directory made from it.

archive.py   the file: what is in it, writing it, and reading it with suspicion
save.py      taking one
drafts.py    where both make what is whole when it gets its name
restore.py   a state directory from one
commands.py  `modelhost backup` and `modelhost restore`

Files of models and environments are not in it: the database says which they are, to the byte and to the version, and a
server that misses them gets them again.
"""
