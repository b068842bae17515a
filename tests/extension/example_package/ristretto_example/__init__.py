"""An example of a package that extends ristretto; its pyproject.toml has the entry points."""
