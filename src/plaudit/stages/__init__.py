"""Where config, backend and algorithm meet: config in, run directory out."""
