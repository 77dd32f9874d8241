"""What the answer of the probe says of a device."""

import subprocess

from grid.devices.facts import PROBE, Facts

PI = """machine=aarch64
system=Linux 6.6.31
model=Raspberry Pi 5 Model B
processor=0
CPU part=0xd0b
processor=1
CPU part=0xd0b
max 0=2400000
now 0=1500000
governor 0=ondemand
max 1=2400000
now 1=2400000
governor 1=ondemand
zone cpu-thermal=51234
zone gpu=99000
MemTotal=8245000 kB
"""


def test_a_board_of_one_cluster():
    facts = Facts.read(PI)
    assert (facts.machine, facts.model, facts.memory_mb) == ("aarch64", "Raspberry Pi 5 Model B", 8051)
    (cluster,) = facts.clusters
    assert (cluster.cores, cluster.part, cluster.max_mhz, cluster.governor) == ((0, 1), "Cortex-A76", 2400, "ondemand")
    assert facts.now_mhz == {0: 1500, 1: 2400}
    assert facts.temperature_c == 51.234, "of the processor, where a sensor is called after it"
    assert facts.fastest() is None, "there is nothing to choose"


def test_of_big_and_little_cores_the_fastest_cluster_is_told():
    cores = "".join(
        f"processor={core}\nCPU part={part}\nmax {core}={khz}\n"
        for core, part, khz in ((0, "0xd05", 1800000), (1, "0xd05", 1800000), (4, "0xd41", 2400000))
    )
    facts = Facts.read(cores)
    assert [one.cores for one in facts.clusters] == [(0, 1), (4,)]
    assert facts.fastest().part == "Cortex-A78"
    assert facts.processor((0,)) == "Cortex-A55"
    assert facts.processor(()) == "Cortex-A55 + Cortex-A78"


def test_a_device_that_tells_nothing_has_no_figures():
    facts = Facts.read("machine=riscv64\nzone x=\nmax 0=\nzone odd=-274000\n")
    assert facts.temperature_c is None
    assert facts.processor(()) == "riscv64"


def test_the_probe_runs_in_a_plain_shell_and_reads_below_the_folder_it_is_told(tmp_path):
    for name, content in {
        "proc/device-tree/model": "Made-up board\0",
        "proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd08\n",
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1800000\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "61000\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    environment = {"QUANTIZATION_GRID_SYSROOT": str(tmp_path), "PATH": "/usr/bin:/bin"}
    found = subprocess.run(["sh", "-c", PROBE], env=environment, capture_output=True, check=True, text=True)
    facts = Facts.read(found.stdout)
    assert (facts.model, facts.processor(()), facts.temperature_c) == ("Made-up board", "Cortex-A72", 61.0)
