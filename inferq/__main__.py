"""`python -m inferq` is the command line."""

from inferq.cli.main import main

if __name__ == "__main__":
    main()
