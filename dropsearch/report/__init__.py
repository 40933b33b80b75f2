"""Output of a run: results.json, tables, the verdict, figures, reports and progress."""
