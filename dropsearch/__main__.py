"""`python -m dropsearch` is the command line."""

from dropsearch.cli import main

if __name__ == "__main__":
    main()
