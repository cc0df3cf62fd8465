"""What hoarfrost reaches, how fast, and where it fails: scripts that print a table and leave a record in ``results/``."""
