"""The embedded model, its preferences, and the judge of its manners. Nothing that the library imports."""
