"""Loading, adapters, reference providers, export."""
