"""Log-probabilities of completions: the tree forward, the head, and the check that both are right."""
