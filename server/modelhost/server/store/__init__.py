"""State that outlives the process: the database, and logs on disk. SQL of a resource is in the module of its name."""
