"""``python -m flatmin`` is the command ``flatmin``."""

import sys

from flatmin.cli import main

if __name__ == "__main__":
    sys.exit(main())
