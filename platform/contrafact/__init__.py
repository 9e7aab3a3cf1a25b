"""Contrafact: business and behavioural research with counterfactual images."""

from pathlib import Path

__version__ = "0.1.0"

# In a checkout the leaves (pipelines, dashboards, migrations, studies) lie at the repository root; in the wheel
# they are subpackages. One more entry on the package path makes both look the same.
_checkout = Path(__file__).resolve().parents[2]
if (_checkout / "pyproject.toml").is_file() and (_checkout / "platform" / "contrafact").is_dir():
    __path__.append(str(_checkout))
