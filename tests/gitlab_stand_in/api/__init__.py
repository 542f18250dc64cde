"""GitLab's API, version 4: one module per part of it, and the table of routes."""
