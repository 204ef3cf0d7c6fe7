"""A synthetic world: captions of a small grammar, clips drawn for them, and a judge of clips that is not a network."""
