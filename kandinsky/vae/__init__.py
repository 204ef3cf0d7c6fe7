"""The CogVideoX 3D causal VAE: our own decoder, which streams; diffusers' classes load, describe and encode."""
