"""What users hand in as files: paths as they write them, and texts, one reader for each kind."""
