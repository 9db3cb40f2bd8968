"""`python -m hqtool`, the same as `hqtool`."""

from hqtool.cli.main import main

if __name__ == "__main__":
    main()
