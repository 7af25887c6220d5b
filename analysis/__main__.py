"""`python -m analysis`."""

import sys

_EXTRA = {"altair", "jinja2", "markupsafe", "matplotlib", "seaborn", "vl_convert"}

try:
    from analysis.cli import main
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] not in _EXTRA:
        raise
    sys.stderr.write(
        f"python -m analysis: error: `{error.name}` must be installed for tables and figures, got "
        "none. Install it with: pip install 'sorakit[analysis]'\n"
    )
    sys.exit(2)

sys.exit(main())
