"""Threads for the parts of a picture: NumPy and zlib let go of the interpreter while they work."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
