"""What hoarfrost reaches, how fast, and where it fails: scripts that print a table and keep a record of it."""
