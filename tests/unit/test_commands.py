"""Every command that a page tells a reader to type: run here, understood by its parser, or marked.

A comment `# needs: Hub` (or GPU, cluster, W&B account) marks what cannot be run here. What reads the
Hub and says nothing of it fails. `tests/integration/test_pages.py` runs the commands of the pages for newcomers.
"""

import importlib.util
import itertools
import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from analysis.arguments import parser as analysis_parser
from sorakit.backbones import EMBEDDED
from sorakit.cli import _parser, parse_run_config
from sorakit.config import RunConfig
from sorakit.sweep.controls import parse_controls
from sorakit.sweep.grid import load_sweep
