"""A model set on disk: found, downloaded, declared, opened, read fast, converted, saved, told apart."""
