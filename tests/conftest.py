from __future__ import annotations

from hypothesis import settings

# A machine that is busy may take any time over an example: no test is timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
