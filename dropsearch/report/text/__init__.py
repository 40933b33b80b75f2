"""The report as text: terminal and Markdown, and the sentences that all forms share."""
