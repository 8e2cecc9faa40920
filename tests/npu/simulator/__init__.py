"""An Ascend NPU for tests, on a machine without one: the vendor's real torch_npu over a stand-in CANN."""
