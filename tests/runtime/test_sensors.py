"""Power, clocks, temperature and throttling, on recorded trees of machines that are not here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from percodec.runtime.measure.sensors import Sensors, parse_tegrastats, summarize

QUANTITIES = ("power", "gpu clock", "cpu clock", "temperature", "throttling", "energy")
SECOND = 1_000_000_000


def ina3221(*rails: tuple[str, int, int]) -> dict[str, Any]:
    """Label, mV and mA of the channels."""
    files: dict[str, Any] = {"name": "ina3221"}
    for n, (label, mv, ma) in enumerate(rails, 1):
        files |= {f"in{n}_label": label, f"in{n}_input": mv, f"curr{n}_input": ma}
    return files


AGX_ORIN = {
    "class/hwmon/hwmon0": {"name": "pwmfan", "pwm1": 76},
    "class/hwmon/hwmon1": {"name": "pwm_tach", "rpm": 1530},
    "class/hwmon/hwmon2": {"name": "soctherm_oc", "oc1_event_cnt": 0, "oc2_event_cnt": 0, "oc3_event_cnt": 7, "oc3_throt_en": 1},
    "class/hwmon/hwmon3": ina3221(("VDD_GPU_SOC", 19936, 160), ("VDD_CPU_CV", 19944, 40), ("VIN_SYS_5V0", 4992, 760))
    | {"in4_input": 320, "in7_label": "sum of shunt voltages", "in7_input": 400, "curr4_input": 200},
    "class/hwmon/hwmon4": ina3221(("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 4992, 100)),
    "class/thermal/thermal_zone0": {"type": "cpu-thermal", "temp": 47531},
    "class/thermal/thermal_zone1": {"type": "gpu-thermal", "temp": ""},  # power-gated: no answer
    "class/thermal/thermal_zone2": {"type": "cv0-thermal", "temp": -256000},
    "class/thermal/thermal_zone8": {"type": "tj-thermal", "temp": 48343},
    "class/thermal/cooling_device0": {"type": "pwm-fan", "cur_state": 2},
    **{f"class/thermal/cooling_device{n}": {"type": f"{what}-throttle-alert", "cur_state": 0} for n, what in ((1, "cpu"), (2, "gpu"))},
    "class/devfreq/15340000.vic": {"cur_freq": 115200000},
    "class/devfreq/17000000.gpu": {"cur_freq": 306000000, "min_freq": 306000000, "max_freq": 1300500000, "device/load": 415},
    "devices/system/cpu/cpu0/cpufreq": {"scaling_cur_freq": 729600, "scaling_governor": "schedutil"},
    "devices/system/cpu/cpu1/cpufreq": {"scaling_cur_freq": 729600},
    "devices/system/cpu/cpu4/cpufreq": {"scaling_cur_freq": 2188800},
    "kernel/debug/bpmp/debug/clk/emc": {"rate": 2133000000},
}
ORIN_NANO = {
    "class/hwmon/hwmon1": ina3221(("VDD_IN", 4920, 1000), ("VDD_CPU_GPU_CV", 4920, 200), ("VDD_SOC", 4920, 300)),
    "class/devfreq/17000000.gpu": {"cur_freq": 1020000000, "min_freq": 1020000000, "max_freq": 1020000000},
}
LAPTOP = {
    "class/powercap/intel-rapl:0": {"name": "package-0", "energy_uj": 5_000_000, "max_energy_range_uj": 262_143_328_850},
    "class/powercap/intel-rapl:0:0": {"name": "core", "energy_uj": 1_000_000, "max_energy_range_uj": 262_143_328_850},
    "class/powercap/intel-rapl-mmio:0": {"name": "package-0", "energy_uj": 9, "max_energy_range_uj": 262_143_328_850},
    "class/thermal/thermal_zone0": {"type": "acpitz", "temp": 51000},
    "class/thermal/thermal_zone1": {"type": "acpitz", "temp": 27800},
    "class/thermal/thermal_zone2": {"type": "x86_pkg_temp", "temp": 63000},
    "class/thermal/cooling_device0": {"type": "Processor", "cur_state": 0},
    "class/thermal/cooling_device1": {"type": "Processor", "cur_state": 3},
    "class/thermal/cooling_device2": {"type": "TCC Offset", "cur_state": 3},
    "class/thermal/cooling_device3": {"type": "intel_powerclamp", "cur_state": -1},
    **{f"devices/system/cpu/cpu{n}": {"topology/physical_package_id": 0, "thermal_throttle/package_throttle_count": 11} for n in (0, 1)},
}


def tree(root: Path, sys: dict[str, dict[str, Any]]) -> Path:
    for directory, files in sys.items():
        for name, content in files.items():
            put(root, f"{directory}/{name}", content)
    return root


def put(root: Path, path: str, content: Any) -> None:
    file = Path(os.path.normpath(root / "sys" / path))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{content}\n")


class Clock:
    ns = 100 * SECOND

    def __call__(self) -> int:
        return self.ns


class Nvml:
    """`values` by function name; what is not in it answers NotSupported, as all of Orin's do."""

    def __init__(self, **values: int) -> None:
        self.values, self.init, self.shut = values, 0, False

    def nvmlInit_v2(self) -> int:
        return self.init

    def nvmlShutdown(self) -> int:
        self.shut = True
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:
        handle._obj.value = 0xD0 + index
        return 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)

        def answer(handle: Any, *arguments: Any) -> int:
            assert handle.value == 0xD0
            assert [*arguments[:-1]] == {"nvmlDeviceGetTemperature": [0], "nvmlDeviceGetClockInfo": [1]}.get(name, [])  # die, SM clock
            if name not in self.values:
                return 3
            arguments[-1]._obj.value = self.values[name]
            return 0

        return answer


def test_agx_orin_tells_everything_but_energy(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       31268736 kB\nMemFree:  1 kB\nMemAvailable:   27785216 kB\n")
    put(tmp_path, "../var/lib/nvpmodel/status", "pmode:0000")
    sensors = Sensors(tree(tmp_path, AGX_ORIN))
    reading = sensors.sample()
    assert reading == pytest.approx(
        {
            "power_w.VDD_GPU_SOC": 3.18976,
            "power_w.VDD_CPU_CV": 0.79776,
            "power_w.VIN_SYS_5V0": 3.79392,
            "power_w.VDDQ_VDD2_1V8AO": 0.4992,
            "power_w.total": 7.78144,  # VDDQ_VDD2_1V8AO is behind VIN_SYS_5V0 and not added again
            "fan_pwm.pwmfan": 76,
            "fan_rpm.pwm_tach": 1530,
            "throttling_events.soctherm-oc1": 0,
            "throttling_events.soctherm-oc2": 0,
            "throttling_events.soctherm-oc3": 7,
            "throttling.cpu-throttle-alert": 0,
            "throttling.gpu-throttle-alert": 0,
            "temperature_c.CPU": 47.531,
            "temperature_c.TJ": 48.343,
            "clock_mhz.gpu": 306,
            "load_percent.gpu": 41.5,
            "clock_mhz.cpu": 1216,
            "clock_mhz.emc": 2133,
            "memory_available_mb": 27134,
        }
    )
    assert sensors.total_power == "power_w.total"
    assert sensors.total_covers == "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"
    assert sensors.settings == {"cpu_governor": "schedutil", "gpu_clock": "306 to 1300 MHz (not held)", "nvpmodel": "pmode:0000"}
    assert [name for name in QUANTITIES if name in sensors.missing] == ["energy"]
    assert sensors.missing["temperature.cv0-thermal"] == "switched off"
    put(tmp_path, "class/thermal/thermal_zone1/temp", 51500)  # the GPU was switched on
    put(tmp_path, "class/hwmon/hwmon3/curr1_input", 1600)
    assert sensors.sample()["temperature_c.GPU"] == 51.5
    assert sensors.sample()["power_w.VDD_GPU_SOC"] == pytest.approx(31.8976)


def test_orin_nano_measures_its_input(tmp_path: Path) -> None:
    nvml = Nvml()
    sensors = Sensors(tree(tmp_path, ORIN_NANO), nvml=nvml)
    reading = sensors.sample()
    assert sensors.total_power == "power_w.VDD_IN"
    assert sensors.total_covers == "VDD_IN"
    assert reading[sensors.total_power] == pytest.approx(4.92)
    assert "power_w.total" not in reading
    assert sensors.settings["gpu_clock"] == "1020 to 1020 MHz (min_freq == max_freq, as jetson_clocks does)"
    # NVML is there and knows nothing: said beside what is measured otherwise, and in place of what is not
    assert sensors.missing["power.NVML"] == "answers NotSupported"
    assert sensors.missing["energy"] == sensors.missing["throttling"] == sensors.missing["temperature"] == "NVML: answers NotSupported"
    assert not [name for name in sensors.missing if name.startswith("gpu clock")]
    assert "power" not in sensors.missing
    assert "No such file" in sensors.missing["emc clock"]
    sensors.close()
    assert nvml.shut
    with contextlib.ExitStack() as others:  # files of somebody else, under the numbers that are free again
        for _ in range(16):
            others.enter_context((tmp_path / "sys/class/devfreq/17000000.gpu/cur_freq").open())
        assert sensors.sample() == {}


def test_a_whole_that_cannot_be_read_is_not_replaced_by_its_parts(tmp_path: Path) -> None:
    (tree(tmp_path, ORIN_NANO) / "sys/class/hwmon/hwmon1/curr1_input").unlink()
    sensors = Sensors(tmp_path)
    assert sensors.total_power is None
    assert set(sensors.missing) > {"power.VDD_IN", "power.total"}
    assert "power_w.VDD_SOC" in sensors.sample()


def test_rails_that_are_not_known_to_add_up_have_no_total(tmp_path: Path) -> None:
    rails = ina3221(("VDD_CUSTOM", 5000, 1000))
    sensors = Sensors(tree(tmp_path, {"class/hwmon/hwmon0": rails}), nvml=Nvml(nvmlDeviceGetPowerUsage=3000))
    assert sensors.sample() == {"power_w.VDD_CUSTOM": 5.0, "power_w.gpu": 3.0}
    assert sensors.total_power is None
    assert "add up" in sensors.missing["power.total"]


def test_thor_has_its_input_on_another_chip(tmp_path: Path) -> None:
    board = {
        "class/hwmon/hwmon1": ina3221(("VDD_GPU", 20000, -20), ("VDD_CPU_SOC_MSS", 20000, 300), ("VIN_SYS_5V0", 5000, 1200)),
        "class/hwmon/hwmon2": {"name": "ina238", "label": "VIN", "in0_input": 1, "in1_input": 20000, "curr1_input": 900},
        "class/devfreq/gpu-gpc-0": {"cur_freq": 1575000000},
        "class/devfreq/bwmgr": {"cur_freq": 4266000000},
    }
    sensors = Sensors(tree(tmp_path, board))
    assert sensors.total_power == "power_w.VIN"
    assert sensors.sample() == pytest.approx(
        {"power_w.VDD_GPU": -0.4, "power_w.VDD_CPU_SOC_MSS": 6, "power_w.VIN_SYS_5V0": 6, "power_w.VIN": 18}
        | {"clock_mhz.gpu": 1575, "clock_mhz.emc": 4266}
    )


def test_a_laptop_counts_energy(tmp_path: Path) -> None:
    clock = Clock()
    sensors = Sensors(tree(tmp_path, LAPTOP), clock=clock)
    assert sensors.total_power == "power_w.package-0"
    clock.ns += 2 * SECOND
    put(tmp_path, "class/powercap/intel-rapl:0/energy_uj", 35_000_000)
    put(tmp_path, "class/powercap/intel-rapl:0:0/energy_uj", 21_000_000)
    reading = sensors.sample()
    assert reading == pytest.approx(
        {"energy_j.package-0": 30, "power_w.package-0": 15, "energy_j.package-0.core": 20, "power_w.package-0.core": 10}
        | {"temperature_c.acpitz": 51, "temperature_c.acpitz.1": 27.8, "temperature_c.x86_pkg_temp": 63}
        | {"throttling.Processor": 3, "throttling.intel_powerclamp": -1, "throttling_events.package-0-thermal": 11}
    )
    assert [name for name in QUANTITIES if name in sensors.missing] == ["gpu clock", "cpu clock"]


def test_rapl_starts_over_at_its_range(tmp_path: Path) -> None:
    zone = {"name": "package-0", "energy_uj": 999_000_000, "max_energy_range_uj": 1_000_000_000}
    clock = Clock()
    sensors = Sensors(tree(tmp_path, {"class/powercap/intel-rapl:0": zone}), clock=clock)
    for uj, watts, joules in ((4_000_000, 5.0, 5.0), (10_000_000, 6.0, 11.0)):
        clock.ns += SECOND
        put(tmp_path, "class/powercap/intel-rapl:0/energy_uj", uj)
        assert sensors.sample() == pytest.approx({"power_w.package-0": watts, "energy_j.package-0": joules})


def test_a_refused_counter_is_not_an_absent_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refusing(path: Any, *arguments: Any, **more: Any) -> int:
        if str(path).endswith("energy_uj"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", refusing)
    monkeypatch.setattr(Path, "read_bytes", lambda path: refusing(path, os.O_RDONLY))
    sensors = Sensors(tree(tmp_path, LAPTOP))
    assert sensors.missing["power"] == sensors.missing["energy"] == "RAPL: permission denied (root only, unless a udev rule opens it)"
    assert sensors.total_power is None
    assert not [key for key in sensors.sample() if key.startswith(("power", "energy"))]
    assert sensors.sample()["temperature_c.x86_pkg_temp"] == 63


def test_a_broken_counter_says_how(tmp_path: Path) -> None:
    (tree(tmp_path, LAPTOP) / "sys/class/powercap/intel-rapl:0:0/energy_uj").unlink()
    (tmp_path / "sys/class/powercap/intel-rapl:0:0/energy_uj").mkdir()
    sensors = Sensors(tmp_path)
    assert "directory" in sensors.missing["energy.RAPL"]
    assert "directory" in sensors.missing["power.RAPL"]
    assert "power_w.package-0" in sensors.sample()


def test_where_there_is_nothing_every_quantity_has_its_reason(tmp_path: Path) -> None:
    sensors = Sensors(tmp_path)
    assert sensors.sample() == {}
    assert (sensors.total_power, sensors.total_covers, sensors.settings) == (None, "", {})
    assert set(QUANTITIES) <= set(sensors.missing)
    assert "no INA3221 rail" in sensors.missing["power"]
    assert all(len(sensors.missing[name]) > 20 for name in QUANTITIES)


def test_this_machine_can_be_asked() -> None:
    sensors = Sensors()
    reading = sensors.sample()
    sensors.close()
    assert all(isinstance(value, float) for value in reading.values())
    assert reading.get("memory_available_mb", 1.0) > 0


def test_a_sensor_that_starts_failing_is_left_out_and_comes_back(tmp_path: Path) -> None:
    sensors = Sensors(tree(tmp_path, AGX_ORIN))
    put(tmp_path, "class/hwmon/hwmon3/curr2_input", "")
    put(tmp_path, "devices/system/cpu/cpu4/cpufreq/scaling_cur_freq", "<unknown>")
    reading = sensors.sample()
    assert not {"power_w.VDD_CPU_CV", "power_w.total", "clock_mhz.cpu"} & set(reading)  # no total of fewer parts
    assert reading["power_w.VDD_GPU_SOC"] == pytest.approx(3.18976)
    put(tmp_path, "class/hwmon/hwmon3/curr2_input", 40)
    assert sensors.sample()["power_w.total"] == pytest.approx(7.78144)


def test_nvml_values_beside_rapl(tmp_path: Path) -> None:
    nvml = Nvml(
        nvmlDeviceGetPowerUsage=41_500,
        nvmlDeviceGetTotalEnergyConsumption=7_000_000_000_123,
        nvmlDeviceGetTemperature=57,
        nvmlDeviceGetClockInfo=1410,
    )
    clock = Clock()
    sensors = Sensors(tree(tmp_path, LAPTOP), nvml=nvml, clock=clock)
    assert sensors.total_covers == "gpu + package-0"
    assert sensors.missing["throttling.NVML"] == "answers NotSupported"
    clock.ns += SECOND
    put(tmp_path, "class/powercap/intel-rapl:0/energy_uj", 8_500_000)
    reading = sensors.sample()
    assert reading["power_w.total"] == pytest.approx(45.0)
    assert reading["energy_j.gpu"] == pytest.approx(7_000_000_000.123)
    assert (reading["temperature_c.GPU"], reading["clock_mhz.gpu"]) == (57, 1410)
    del nvml.values["nvmlDeviceGetPowerUsage"]
    assert not {"power_w.gpu", "power_w.total"} & set(sensors.sample())


def test_nvml_that_does_not_start_says_so(tmp_path: Path) -> None:
    nvml = Nvml(nvmlDeviceGetPowerUsage=1)
    nvml.init = 9
    sensors = Sensors(tmp_path, nvml=nvml)
    assert sensors.missing["power"] == sensors.missing["gpu clock"] == "NVML: answers error 9"
    assert sensors.sample() == {}


JETPACK_5 = (  # AGX Orin
    "11-21-2025 08:49:48 RAM 3404/30536MB (lfb 5943x4MB) SWAP 0/15268MB (cached 0MB) CPU [2%@729,1%@729,off,off,0%@2188,0%@2188] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 14%@[305,407] VIC_FREQ 115 NVDLA0_FREQ @1600 APE 174 CV0@-256C CPU@47.5C Tboard@36C GPU@43.937C "
    "VDD_GPU_SOC 2388mW/2388mW VDD_CPU_CV 398mW/400mW VIN_SYS_5V0 3826mW/3826mW VDDQ_VDD2_1V8AO 503mW/503mW"
)
JETPACK_6 = (  # Orin Nano
    "RAM 2571/7620MB (lfb 4x4MB) CPU [5%@1344,3%@1344] GR3D_FREQ 97% cpu@52.1C gpu@54.062C tj@54.062C "
    "VDD_IN 9032mW/8763mW VDD_CPU_GPU_CV 3421mW/3330mW VDD_SOC 2173mW/2160mW new_word 12/13"
)
JETPACK_7 = (  # AGX Thor
    "04-21-2026 15:50:52 RAM 105265/125772MB (lfb 34x4MB) CPU [0%@972,8%@2601] EMC_FREQ 0%@2750 GR3D_FREQ @[314,314,314] VIC off "
    "PVA0_FREQ off cpu@37.343C soc012@37.468C VDD_GPU -392mW/-392mW/1962mW VDD_CPU_SOC_MSS 5887mW/5887mW/5887mW "
    "VIN_SYS_5V0 5635mW/5635mW/5635mW VIN 19780mW/19780mW/19780mW"
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            JETPACK_5,
            {"power_w.VDD_GPU_SOC": 2.388, "power_w.VDD_CPU_CV": 0.398, "power_w.VIN_SYS_5V0": 3.826, "power_w.VDDQ_VDD2_1V8AO": 0.503}
            | {"power_w.total": 6.612, "temperature_c.CPU": 47.5, "temperature_c.TBOARD": 36, "temperature_c.GPU": 43.937}
            | {"clock_mhz.cpu": 1458.5, "clock_mhz.emc": 2133, "clock_mhz.gpu": 407, "load_percent.emc": 0}
            | {"load_percent.gpu": 14, "memory_available_mb": 27132},
        ),
        (
            JETPACK_6,
            {"power_w.VDD_IN": 9.032, "power_w.VDD_CPU_GPU_CV": 3.421, "power_w.VDD_SOC": 2.173, "clock_mhz.cpu": 1344}
            | {"load_percent.gpu": 97, "temperature_c.CPU": 52.1, "temperature_c.GPU": 54.062, "temperature_c.TJ": 54.062}
            | {"memory_available_mb": 5049},
        ),
        (
            JETPACK_7,
            {"power_w.VDD_GPU": -0.392, "power_w.VDD_CPU_SOC_MSS": 5.887, "power_w.VIN_SYS_5V0": 5.635, "power_w.VIN": 19.78}
            | {"temperature_c.CPU": 37.343, "temperature_c.SOC012": 37.468, "clock_mhz.cpu": 1786.5, "clock_mhz.emc": 2750}
            | {"clock_mhz.gpu": 314, "load_percent.emc": 0, "memory_available_mb": 20507},
        ),
        ("", {}),
        ("tegrastats: command not found @C [ RAM x/yMB CPU [ GR3D_FREQ off", {}),
    ],
)
def test_tegrastats_lines(line: str, expected: dict[str, float]) -> None:
    assert parse_tegrastats(line) == pytest.approx(expected)


def test_energy_is_the_area_under_the_total_power() -> None:
    # A triangle of 10 W over 4 s with its peak after 1 s: 20 J, whatever the spacing of the samples; parts are not added to it.
    watts = {0.0: 0.0, 0.5: 5.0, 1.0: 10.0, 4.0: 0.0}
    samples = [(int((7 + at) * SECOND), {"power_w.VDD_IN": value, "power_w.VDD_SOC": 99.0}) for at, value in watts.items()]
    samples.insert(2, (int(7.75 * SECOND), {"power_w.VDD_SOC": 99.0}))  # the total failed once: bridged
    result = summarize(samples, frames=40)
    assert result["energy_j"] == pytest.approx(20.0)
    assert result["energy_per_frame_j"] == pytest.approx(0.5)
    assert (result["energy_of"], result["seconds"], result["samples"]) == ("VDD_IN", 4.0, 5)
    assert result["readings"]["power_w.VDD_IN"] == {"mean": 3.75, "min": 0.0, "max": 10.0}
    assert result["throttling"] == []


def test_energy_of_a_sum_names_its_parts() -> None:
    reading = parse_tegrastats("VDD_GPU_SOC 2000mW/1mW VDD_CPU_CV 500mW/1mW VIN_SYS_5V0 3500mW/1mW VDDQ_VDD2_1V8AO 400mW/1mW")
    found = summarize([(0, reading), (2 * SECOND, reading)], frames=0)
    said = (found["energy_j"], found["energy_per_frame_j"], found["energy_of"])
    assert said == (12.0, None, "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0")


def test_without_a_total_there_is_no_energy() -> None:
    for samples in ([], [(0, {"power_w.VDD_IN": 5.0})], [(at, {"power_w.VDD_SOC": 5.0, "clock_mhz.gpu": 1.0}) for at in (0, SECOND)]):
        assert [summarize(samples, 10)[k] for k in ("energy_j", "energy_per_frame_j", "energy_of")] == [None] * 3


def test_throttling_is_told_when_it_happened_in_the_run() -> None:
    quiet = {"throttling_events.soctherm-oc1": 4.0, "throttling_events.soctherm-oc3": 12.0, "throttling.cpu-throttle-alert": 0.0}
    quiet |= {"throttling.gpu-throttle-alert": 0.0, "throttling_bits.gpu": float(0x1), "energy_j.gpu": 100.0}  # 0x1: idle, not throttled
    loud = quiet | {"throttling_events.soctherm-oc3": 15.0, "throttling.gpu-throttle-alert": 2.0}
    loud |= {"throttling_bits.gpu": float(0x41), "energy_j.gpu": 130.0}
    assert summarize([(0, quiet), (SECOND, quiet)], 1)["throttling"] == []
    result = summarize([(0, quiet), (SECOND, loud), (2 * SECOND, quiet | {"throttling_events.soctherm-oc3": 15.0})], 1)
    assert result["throttling"] == ["gpu-hw-thermal", "gpu-throttle-alert", "soctherm-oc3"]
    assert result["counters"] == {"throttling_events.soctherm-oc1": 0, "throttling_events.soctherm-oc3": 3, "energy_j.gpu": 30}
