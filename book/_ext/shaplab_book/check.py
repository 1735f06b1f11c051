"""The command line of ``shaplab_book.checking``: ``python -m shaplab_book.check --help``.

Nothing imports this module: its name in the package belongs to the function ``check``.
"""

import sys

from shaplab_book.checking import main

if __name__ == "__main__":
    sys.exit(main())
