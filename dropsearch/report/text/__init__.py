"""Text of the report: terminal, Markdown, and sentences that all forms share."""
