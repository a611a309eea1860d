"""Hosted APIs: clients with retries and rate limits, and encoders that request embeddings from them."""
