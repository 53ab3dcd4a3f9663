"""`amb` and `python -m amb`."""

from __future__ import annotations

from amb.cli import main

if __name__ == "__main__":
    main()
