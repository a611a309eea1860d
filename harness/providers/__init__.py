"""Hosted APIs: embeddings and the HTTP plumbing that their SDKs lack."""
