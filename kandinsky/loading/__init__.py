"""Arguments to settings, settings to parts that are ready to run."""
