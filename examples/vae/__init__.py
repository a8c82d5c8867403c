"""The parts of examples/discrete_vae.py, one job a file."""
