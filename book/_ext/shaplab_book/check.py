"""The command line of ``shaplab_book.checking``: ``python -m shaplab_book.check --help``.

Nothing imports this module: its name in the package belongs to the function ``check``.
"""

import os
import sys

from shaplab_book.checking import main

if __name__ == "__main__":
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # who reads, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)
