"""Scripts that the doctor runs in processes of their own; nothing imports them."""
