"""The machine that figures were measured with."""

from pathlib import Path

import pytest

from normbench.storage.environment import environment, processor

LINUX = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1
flags\t\t: fpu vme avx avx2 fma avx512f sse4_2 amx_tile f16c

processor\t: 1
model\t\t: 99
"""
ARM = """processor : 0
Features : fp asimd sha1 sve bf16 i8mm
CPU implementer : 0x41
CPU part : 0xd40
CPU revision : 1
"""


def test_a_processor_is_told_by_family_model_stepping_and_instruction_sets(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(LINUX, encoding="utf-8")
    assert processor(file) == {
        "processor": "AMD EPYC",
        "cpu_family": "25",
        "cpu_model": "17",
        "cpu_stepping": "1",
        "instruction_sets": "amx_tile avx avx2 avx512f f16c fma",
    }
    file.write_text(ARM, encoding="utf-8")
    found = processor(file)
    assert (found["cpu_family"], found["cpu_model"], found["cpu_stepping"]) == (
        "0x41",
        "0xd40",
        "1",
    )
    assert found["instruction_sets"] == "asimd bf16 i8mm sve"


def test_where_the_system_says_nothing_only_a_name_is_known(tmp_path: Path) -> None:
    found = processor(tmp_path / "missing")
    assert found.pop("processor")
    assert set(found.values()) == {None}


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="only Linux has /proc/cpuinfo")
def test_the_environment_tells_this_machine(tmp_path: Path) -> None:
    assert processor().items() <= environment(tmp_path).items()
