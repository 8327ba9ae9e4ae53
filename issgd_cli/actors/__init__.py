"""The actors: master, worker, monitor; what each has in common with the others."""
