"""What comes back: files, frames, latents, and the records in them."""
