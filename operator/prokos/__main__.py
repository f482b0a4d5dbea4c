"""`python -m prokos` is the command `prokos`."""

from prokos.cli import main

main()
