"""`python -m foldpoint`: the command line."""

from foldpoint.cli import main

if __name__ == "__main__":
    main(prog_name="foldpoint")
