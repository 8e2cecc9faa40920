"""The audit before a run: what would become of every row, how long they are, and what a template does to them."""
