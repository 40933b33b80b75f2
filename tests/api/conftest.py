from __future__ import annotations

from tests.experiment.conftest import _tables, one_figure  # noqa: F401
