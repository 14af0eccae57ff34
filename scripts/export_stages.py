"""Export Stable Diffusion weights to a served model repository: see docs/export.md."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    from triptych_export.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"export_stages: {error}: `pip install .[export]` brings it, and so does env_bash.sh")

if __name__ == "__main__":
    sys.exit(main())
