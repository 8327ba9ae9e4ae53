"""How the master draws its examples, and what it makes of the table of norms for that. Listed in registries.py."""
