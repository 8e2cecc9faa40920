"""One module a method: its settings and the glue between the rooms."""
