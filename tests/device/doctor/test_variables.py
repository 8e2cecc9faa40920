"""Environment variables that work against each other or the machine."""

from __future__ import annotations

import pytest

from burnish.device.doctor.variables import check_variables


@pytest.mark.parametrize(
    ("variables", "key"),
    [
        ({"PYTORCH_NPU_ALLOC_CONF": "a:1"}, "variables.ok"),
        ({"PYTORCH_NPU_ALLOC_CONF": "a:1", "PYTORCH_ALLOC_CONF": "a:1"}, "variables.two_allocators"),
        ({"CUDA_LAUNCH_BLOCKING": "1"}, "variables.blocking"),
        ({"HCCL_CONNECT_TIMEOUT": "300s"}, "variables.bad_number"),
        ({"HCCL_EXEC_TIMEOUT": "3600"}, "variables.ok"),
        ({"TASK_QUEUE_ENABLE": "yes"}, "variables.bad_number"),
        ({"TASK_QUEUE_ENABLE": "2"}, "variables.ok"),
        ({"INF_NAN_MODE_ENABLE": "0"}, "variables.saturation"),
        ({"LOCAL_RANK": "3", "RANK": "3"}, "variables.left_rank"),
        ({"CPU_AFFINITY_CONF": "1"}, "variables.ok"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "variables.ok"),  # the right one is set beside it
    ],
)
def test_each_rule_speaks_up_only_for_its_case(ascend, variables: dict[str, str], key: str):
    ascend.environment |= variables
    assert check_variables(ascend.machine()).key == key


@pytest.mark.parametrize(
    ("value", "key"), [("1", "variables.affinity"), ("1,force:1", "variables.ok"), ("0", "variables.ok")]
)
def test_binding_cores_in_a_container_needs_force(ascend, value: str, key: str):
    ascend.file("/proc/1/cgroup", "12:cpu:/kubepods/burstable/pod1\n").environment["CPU_AFFINITY_CONF"] = value
    assert check_variables(ascend.machine()).key == key


def test_the_wrong_devices_variable_is_caught_and_the_right_one_named(ascend):
    ascend.environment.pop("ASCEND_RT_VISIBLE_DEVICES")
    ascend.environment["CUDA_VISIBLE_DEVICES"] = "0,1"
    assert check_variables(ascend.machine()).cure("en") == "export ASCEND_RT_VISIBLE_DEVICES=0,1"


def test_several_faults_are_all_told_the_gravest_first(ascend):
    ascend.environment |= {"ASCEND_LAUNCH_BLOCKING": "1", "TASK_QUEUE_ENABLE": "2"}
    ascend.environment |= {"PYTORCH_NPU_ALLOC_CONF": "a:1", "PYTORCH_ALLOC_CONF": "a:1"}
    finding = check_variables(ascend.machine())
    assert [one.key for one in (finding, *finding.also)] == [
        *("variables.two_allocators", "variables.blocking", "variables.blocking_queue")
    ]


def test_rules_of_the_npu_are_silent_elsewhere(fake):
    fake.environment |= {"PYTORCH_NPU_ALLOC_CONF": "a:1", "PYTORCH_ALLOC_CONF": "a:1", "CUDA_VISIBLE_DEVICES": "0"}
    assert check_variables(fake.machine()).key == "variables.ok"
