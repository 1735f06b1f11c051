"""Let Jupyter kernels talk through socket files in a private folder.

By default a kernel gets TCP ports that were free a moment ago; when several start at once, now and
then one finds its port taken and dies. Importing this module is enough; pytest does it with ``-p
ipc_kernels`` for nbval.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from itertools import count
from typing import Any

from jupyter_client import KernelManager


def use_socket_files() -> None:
    """Give every kernel manager of this process the transport "ipc", in a folder with a short
    name."""
    folder = os.environ.get("SHAPLAB_KERNELS", "")
    if not os.path.isdir(folder):  # the first process makes it and removes it, its workers share it
        folder = tempfile.mkdtemp(prefix="nb", dir="/tmp" if os.path.isdir("/tmp") else None)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["SHAPLAB_KERNELS"] = os.environ["JUPYTER_RUNTIME_DIR"] = folder
    make = KernelManager.__init__
    number = count()

    def make_with_files(self: KernelManager, *arguments: Any, **options: Any) -> None:
        address = f"{folder}/{os.getpid()}-{next(number)}"
        make(self, *arguments, **{"transport": "ipc", "ip": address, **options})

    KernelManager.__init__ = make_with_files  # type: ignore[method-assign]


use_socket_files()
# What the library says of its first call depends on what ran before; pages must not.
os.environ.setdefault("SHAPLAB_QUIET", "1")
