"""The commands: what measures is Hydra, what reads records is argparse."""
