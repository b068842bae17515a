"""`python -m ristretto_cli` is the `ristretto` command."""

from ristretto_cli.cli.main import main

if __name__ == "__main__":
    main()
