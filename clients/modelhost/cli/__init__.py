"""The `modelhost` command. `main.py` has its verbs, `errors.py` its exit codes."""
