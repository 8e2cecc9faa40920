"""Python runs this in every process that has this folder on PYTHONPATH."""

from npu.simulator.hook import install

install()
