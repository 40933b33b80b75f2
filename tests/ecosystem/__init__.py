"""Public Lightning packages, searched unchanged; `scripts/ecosystem NAME` runs a file of these."""
