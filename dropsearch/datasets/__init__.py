"""Built-in data sets, splits and loaders, and adapters for user data modules."""
