"""Export Stable Diffusion weights to a served model repository: see docs/export.md."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from triptych_export.errors import HAS_LIBRARIES

try:
    from triptych_export.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"export_stages: {error}: {HAS_LIBRARIES}")

if __name__ == "__main__":
    sys.exit(main())
