"""The DiT: single-device code with a replaceable attention callable. It knows nothing of files, groups or processes."""
