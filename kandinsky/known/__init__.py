"""What is known of a video before it is sampled: pixels that a call gives, and the latents that they become."""
