"""``python -m normbench`` is ``normbench``."""

import sys

from normbench.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
