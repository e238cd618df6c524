#!/usr/bin/env python3
"""Let the Python of VENV see SITE first and then the packages of the Python that runs this."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

venv, site = (Path(argument).resolve() for argument in sys.argv[1:])
python = f"python{sys.version_info.major}.{sys.version_info.minor}"
packages = venv / "lib" / python / "site-packages"
# Paths of such a file are searched, and the .pth files in them are not read: an editable install stays unseen.
(packages / "layer.pth").write_text(f"{site}\n{sysconfig.get_path('purelib')}\n")
