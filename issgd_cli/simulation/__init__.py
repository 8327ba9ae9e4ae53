"""The simulated cluster: a virtual clock, and what takes how long on it."""
