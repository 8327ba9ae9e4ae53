import issgd_cli.moved  # noqa: F401 - tells who imports by a path of 0.1 the new one
