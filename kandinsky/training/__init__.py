"""Training: pretraining, LADD, data. Nothing else in the library imports it."""
