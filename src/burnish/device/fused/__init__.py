"""The vendor's fused operators on an NPU: which model can use which, what they compute, how a model takes them."""
