"""`python -m issgd_cli` is `issgd`."""

from issgd_cli.cli import main

main()
