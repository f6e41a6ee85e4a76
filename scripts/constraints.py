"""Print constraints.txt: every installed distribution and its exact version, without build labels."""

from __future__ import annotations

import re
from importlib.metadata import distributions

LEFT_OUT = {"pip", "wheel", "plaudit"}


def main() -> None:
    """Write the pins of the running environment to stdout."""
    pins = {re.sub(r"[-_.]+", "-", d.name).lower(): d.version.partition("+")[0] for d in distributions()}
    print("# What `make setup` and `make test` install. Written by `make constraints`, never by hand.")
    print("\n".join(f"{name}=={version}" for name, version in sorted(pins.items()) if name not in LEFT_OUT))


if __name__ == "__main__":
    main()
