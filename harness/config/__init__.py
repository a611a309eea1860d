"""Compose configs with Hydra, check them, and construct objects from them."""
