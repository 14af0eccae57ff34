"""Turn a served model repository back into a folder that diffusers' pipelines load.

    python scripts/rebuild_checkpoint.py model_repository /tmp/checkpoint

Where no vae_encoder is served, the encoder's weights in the folder are zeros.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from triptych.names import MODEL
from triptych_export.errors import HAS_LIBRARIES, ExportError


def main() -> int:
    """0 when the folder is written, 1 after a line that says why not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repository", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--name", default=MODEL, help="of the model (default: %(default)s)")
    options = parser.parse_args()
    try:
        from triptych_export.rebuild import rebuild

        rebuild(options.repository, options.output, options.name)
    except (ExportError, OSError) as error:
        print(f"rebuild_checkpoint: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"rebuild_checkpoint: {error}: {HAS_LIBRARIES}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
