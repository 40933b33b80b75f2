from __future__ import annotations

from tests.experiment.conftest import _one_thread, _tables, one_figure  # noqa: F401
