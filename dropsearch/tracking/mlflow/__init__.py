"""The tracker that writes to MLflow."""
