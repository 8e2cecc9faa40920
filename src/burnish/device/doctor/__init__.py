"""`burnish doctor`: goes down the chain from the device's node to a first gradient, and names the first broken link.

Nothing here imports torch: a machine whose torch or torch_npu is broken is the one that needs a doctor. What only torch
can answer is asked in a process of its own (`probes/`).
"""
