"""Prompt to text embedding: tokenizer, T5, and the memory of prompts."""
