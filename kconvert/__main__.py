"""``python -m kconvert``: the command line."""

from kconvert.cli import main

if __name__ == "__main__":
    main()
