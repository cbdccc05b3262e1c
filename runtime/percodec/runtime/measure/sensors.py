"""What this machine tells about power, clocks, temperature and throttling: no root, no daemon, no tegrastats process.

Which one should I use? `Sensors().sample()` while something runs, `parse_tegrastats` for the lines of `tegrastats --logfile`, `summarize`
for either. Keys carry the unit: `power_w.VDD_IN`, `energy_j.package-0` (counter), `temperature_c.GPU`, `clock_mhz.gpu` / `.cpu` / `.emc`,
`load_percent.gpu`, `fan_rpm.pwm_tach`, `fan_pwm.pwmfan` (0..255), `memory_available_mb` (MiB), `throttling.gpu-throttle-alert` (state,
0 = not), `throttling_events.soctherm-oc3` (counter), `throttling_bits.gpu` (NVML's mask).

Sources: kernel documentation hwmon/ina3221, hwmon/ina238, power/powercap, driver-api/thermal/sysfs-api, admin-guide/pm/cpufreq, devfreq;
Jetson Linux Developer Guide "Platform Power and Performance" and "Tegrastats Utility"; NVML API reference.
"""

from __future__ import annotations

import ctypes
import os
import re
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

_ABSENT = {
    "power": "no INA3221 rail, no RAPL counter and no NVML power on this machine",
    "gpu clock": "no GPU in /sys/class/devfreq and no NVML clock on this machine",
    "cpu clock": "no cpufreq on this machine (usual in virtual machines)",
    "temperature": "no thermal zone and no NVML temperature on this machine",
    "throttling": "no over-current counter, throttling cooling device, thermal_throttle counter or NVML reasons on this machine",
    "energy": "no RAPL and no NVML energy counter on this machine; energy can only be integrated from sampled power",
}
# Rails that make up the whole; the first row found counts. VIN_SYS_5V0 is the 5 V branch, not the input, whatever its name says. On AGX
# Orin it feeds VDDQ_VDD2_1V8AO, which must not be added again (Developer Guide, "Software-Based Power Consumption Modeling").
_BOARDS = "VIN|VDD_IN|POM_5V_IN|VDD_GPU_SOC VDD_CPU_CV VIN_SYS_5V0|VDD_GPU VDD_CPU_SOC_MSS VIN_SYS_5V0|GPU CPU SOC CV VDDRQ SYS5V"
_WHOLE = [tuple(rails.split()) for rails in _BOARDS.split("|")]
_NVML_VALUES: tuple[tuple[str, str, str, Any, float, tuple[int, ...]], ...] = (
    # From Ampere on this power is the mean of the last second: for short runs the energy counter is the better figure.
    ("power", "power_w.gpu", "nvmlDeviceGetPowerUsage", ctypes.c_uint, 1e-3, ()),
    ("energy", "energy_j.gpu", "nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong, 1e-3, ()),
    ("temperature", "temperature_c.GPU", "nvmlDeviceGetTemperature", ctypes.c_uint, 1.0, (0,)),
    ("gpu clock", "clock_mhz.gpu", "nvmlDeviceGetClockInfo", ctypes.c_uint, 1.0, (1,)),  # 1: the SM clock
    ("throttling", "throttling_bits.gpu", "nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong, 1.0, ()),
)
_NVML_BITS = {0x04: "power-cap", 0x08: "hw-slowdown", 0x20: "sw-thermal", 0x40: "hw-thermal", 0x80: "power-brake"}
# Fans and Intel's "TCC Offset" are cooling devices too, with a state that is not zero in normal operation.
_THROTTLES = re.compile(r"throttle|alert|cpufreq|devfreq|powerclamp|^Processor")
_GPUS = re.compile(r"gpu|\.g[a-z]\d\d[ab]$")  # 17000000.gpu, 17000000.ga10b, gpu-gpc-0
_DENIED = "permission denied (root only, unless a udev rule opens it)"
_FAILS = (OSError, ValueError, LookupError, AttributeError)
Reader = Callable[[], float]


class Sensors:
    """Finds at construction what there is below `root` and keeps it open until `close`. For one thread; a rail takes about 1 ms of I2C.

    `missing`: why "power", "gpu clock", "cpu clock", "temperature", "throttling" or "energy" is not measured here; where only one source
    of several does not answer, "quantity.source". `total_power`: the key that is the power of the whole, None if that is not known;
    `total_covers`: what it includes. `settings`: nvpmodel mode, GPU clock range and CPU governor as found at construction.
    `nvml`: an object with the functions of libnvidia-ml.so.1, instead of it; `gpu`: NVML's index; `clock`: ns, for the watts of RAPL.
    """

    def __init__(self, root: Path = Path("/"), *, nvml: Any = None, gpu: int = 0, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.settings: dict[str, str] = {}
        self._root, self._clock, self._open = root, clock, ExitStack()
        self._readers: dict[str, Reader] = {}
        self._rapl: dict[str, tuple[int, float, float, float]] = {}  # ns and J of its last reading, J so far, J where it starts over
        self._found: set[str] = set()
        self._why: dict[str, dict[str, str]] = {}
        weakref.finalize(self, self._open.close)
        self._find_power_and_fans()
        self._find_clocks()
        self._find_thermal()
        self._find_nvml(nvml, gpu)
        available = self._number(root / "proc/meminfo", 1 / 1024, lambda text: float(text.split(b"MemAvailable:")[1].split()[0]))
        self._add("memory", "meminfo", "memory_available_mb", available)
        self.total_power, self._parts = _total([*self._readers, *(f"power_w.{name}" for name in self._rapl)])
        self.total_covers = " + ".join(self._parts)
        self.missing = {name: absent for name, absent in _ABSENT.items() if name not in self._found}
        for name, why in self._why.items():
            sources = {f"{name}.{source}": reason for source, reason in why.items()}
            joined = {name: "; ".join(f"{source}: {reason}" for source, reason in why.items())}
            self.missing.update(sources if name in self._found else joined)
        if "power" in self._found and not self._parts:
            self.missing["power.total"] = "it is not known which of these rails add up to the whole"

    def close(self) -> None:
        """Give the files back. Later samples are empty."""
        self._readers.clear()  # first: the number of a closed descriptor may soon be another file's
        self._open.close()

    def sample(self) -> dict[str, float]:
        """One reading; units are in the keys. What fails is left out of this one and tried again in the next."""
        now, reading = self._clock(), dict[str, float]()
        for key, read in self._readers.items():
            with suppress(*_FAILS):
                reading[key] = read()
        for name, (at, before, total, limit) in self._rapl.items():
            if (raw := reading.get(f"energy_j.{name}")) is not None:
                step = max(raw - before + (limit if raw < before else 0.0), 0.0)
                reading[f"energy_j.{name}"], reading[f"power_w.{name}"] = total + step, step * 1e9 / max(now - at, 1)
                self._rapl[name] = now, raw, total + step, limit
        return _with_total(reading, self._parts)

    def _number(self, path: Path, scale: float = 1.0, parse: Callable[[bytes], float] = float) -> Reader:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return lambda: parse(path.read_bytes()) * scale  # refuses again, and says why
        self._open.callback(os.close, fd)
        return lambda: parse(os.pread(fd, 4096, 0)) * scale  # sysfs computes its answer anew for every read at offset 0

    def _add(self, quantity: str, source: str, key: str, read: Reader, *, keep: bool = False) -> float | None:
        """Takes a reader that answers, returns the answer. `keep`: also one that does not answer yet. What came first has the key."""
        value = None
        if key not in self._readers:
            try:
                value = read()
                self._found.add(quantity)
            except _FAILS as error:
                reason = _DENIED if isinstance(error, PermissionError) else getattr(error, "strerror", None) or str(error)
                self._why.setdefault(quantity, {}).setdefault(source, reason)
            if value is not None or keep:
                self._readers[key] = read
        return value

    def _find_power_and_fans(self) -> None:
        for chip in sorted(self._root.glob("sys/class/hwmon/hwmon*")):
            name = _text(chip / "name")
            for n in {"ina3221": "123", "ina238": "1"}.get(name, ""):  # an INA3221's 4 to 7 are shunt voltages and their sum
                label = _text(chip / f"in{n}_label") or _text(chip / "label")
                if label not in ("", "NC"):
                    volt_ampere = [self._number(chip / f"{kind}{n}_input", 1e-3) for kind in ("in", "curr")]
                    self._add("power", label, f"power_w.{label}", partial(_over, np.prod, volt_ampere))
            for file in sorted(chip.glob("oc[0-9]_event_cnt")):
                self._add("throttling", "soctherm", f"throttling_events.soctherm-{file.name[:3]}", self._number(file))
            for file, unit in ((chip / "fan1_input", "rpm"), (chip / "rpm", "rpm"), (chip / "pwm1", "pwm")):
                if file.exists():
                    self._add(f"fan {unit}", name, f"fan_{unit}.{name}", self._number(file))
        top = self._root / "sys/class/powercap"
        for zone in sorted(top.glob("intel-rapl:*")):
            name = _text(zone / "name") or zone.name
            if zone.name.count(":") == 2:  # core, uncore, dram: unique only together with their package
                name = f"{_text(top / zone.name.rpartition(':')[0] / 'name')}.{name}"
            first = self._add("energy", "RAPL", f"energy_j.{name}", self._number(zone / "energy_uj", 1e-6))
            if first is not None:
                self._rapl[name] = self._clock(), first, 0.0, float(_text(zone / "max_energy_range_uj") or 0) / 1e6
                self._found.add("power")
        if "energy" in self._why:
            self._why.setdefault("power", {}).update(self._why["energy"])

    def _find_clocks(self) -> None:
        if cores := sorted(self._root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq")):
            clocks = [self._number(core / "scaling_cur_freq", 1e-3) for core in cores]
            self._add("cpu clock", "cpufreq", "clock_mhz.cpu", partial(_over, np.mean, clocks))
            self.settings["cpu_governor"] = _text(cores[0] / "scaling_governor")
        for gpu in [path for path in sorted(self._root.glob("sys/class/devfreq/*")) if _GPUS.search(path.name)][:1]:
            self._add("gpu clock", "devfreq", "clock_mhz.gpu", self._number(gpu / "cur_freq", 1e-6))
            low, high = _text(gpu / "min_freq"), _text(gpu / "max_freq")
            if low and high:
                held = "min_freq == max_freq, as jetson_clocks does" if low == high else "not held"
                self.settings["gpu_clock"] = f"{int(low) // 10**6} to {int(high) // 10**6} MHz ({held})"
            for load in (path for path in (gpu / "device/load", self._root / "sys/devices/gpu.0/load") if path.exists()):
                self._add("gpu load", "sysfs", "load_percent.gpu", self._number(load, 0.1))
            emc = self._root / "sys/class/devfreq/bwmgr/cur_freq"  # newer; the other one is root's alone
            emc = emc if emc.exists() else self._root / "sys/kernel/debug/bpmp/debug/clk/emc/rate"
            self._add("emc clock", "debugfs", "clock_mhz.emc", self._number(emc, 1e-6))
        if mode := _text(self._root / "var/lib/nvpmodel/status"):
            self.settings["nvpmodel"] = mode

    def _find_thermal(self) -> None:
        for zone in sorted(self._root.glob("sys/class/thermal/thermal_zone*")):
            kind = _text(zone / "type") or zone.name
            name = re.sub(r"[-_](therm|thermal|tegra)$", "", kind)
            key = f"temperature_c.{kind if name == kind else name.upper()}"  # tegrastats: JetPack 5 says GPU, 6 gpu
            if key in self._readers:
                key += zone.name.replace("thermal_zone", ".")
            # The zone of a power-gated unit (Jetson's GPU when idle) refuses until the unit is on.
            self._add("temperature", kind, key, self._number(zone / "temp", 1.0, lambda text: _celsius(float(text) / 1e3)), keep=True)
        alike: dict[str, list[Reader]] = {}
        for device in sorted(self._root.glob("sys/class/thermal/cooling_device*")):
            if _THROTTLES.search(name := _text(device / "type")):
                alike.setdefault(name, []).append(self._number(device / "cur_state"))
        for name, states in alike.items():
            self._add("throttling", name, f"throttling.{name}", partial(_over, np.max, states))
        for cpu in sorted(self._root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")):
            key = f"throttling_events.package-{_text(cpu.parent / 'topology/physical_package_id') or '0'}-thermal"
            if key not in self._readers:  # every core of a package shows the same count
                self._add("throttling", "thermal_throttle", key, self._number(cpu / "package_throttle_count"))

    def _find_nvml(self, nvml: Any, gpu: int) -> None:
        with suppress(OSError):
            nvml = ctypes.CDLL("libnvidia-ml.so.1") if nvml is None and self._root == Path("/") else nvml
        if nvml is None:
            return
        handle = ctypes.c_void_p()
        failed = nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByIndex_v2(gpu, ctypes.byref(handle))
        self._open.callback(nvml.nvmlShutdown)
        for quantity, key, function, kind, scale, arguments in _NVML_VALUES:
            self._add(quantity, "NVML", key, partial(_nvml_value, nvml, failed, function, (handle, *arguments), kind, scale))


def parse_tegrastats(line: str) -> dict[str, float]:
    """The keys of `Sensors.sample` from one line of tegrastats (JetPack 5, 6, 7); unknown words are skipped.
    Rails: the first of "now/average" mW. `memory_available_mb`: total minus used. Several GPU clusters: the fastest.
    """
    reading = {f"power_w.{name}": int(mw) / 1e3 for name, mw in re.findall(r"\b([A-Z]\w*) (-?\d+)mW", line)}
    for name, celsius in re.findall(r"\b([A-Za-z]\w*)@(-?[\d.]+)C\b", line):
        with suppress(ValueError):
            reading[f"temperature_c.{name.upper()}"] = _celsius(float(celsius))
    if clocks := re.findall(r"@(\d+)", "".join(re.findall(r"\bCPU \[[^]]*\](?:@\d+)?", line))):
        reading["clock_mhz.cpu"] = float(np.mean([int(mhz) for mhz in clocks]))
    for word, load, clock in re.findall(r"\b(EMC|GR3D)_FREQ (?:(\d+)%)?(?:@\[?([\d,]+))?", line):
        name = "gpu" if word == "GR3D" else "emc"
        if load:
            reading[f"load_percent.{name}"] = float(load)
        if clock:
            reading[f"clock_mhz.{name}"] = float(max(int(mhz or 0) for mhz in clock.split(",")))
    if ram := re.search(r"\bRAM (\d+)/(\d+)MB", line):
        reading["memory_available_mb"] = float(int(ram[2]) - int(ram[1]))
    return _with_total(reading, _total(reading)[1])


def summarize(samples: list[tuple[int, dict[str, float]]], frames: int) -> dict[str, Any]:
    """`samples`: (monotonic ns, reading), oldest first; `frames`: done between the first and the last of them.

    `readings`: mean, min, max per key; `counters`: growth per key. `energy_j`, `energy_per_frame_j`: trapezoid over the total power, None
    if that is not known; `energy_of`: what it covers. `throttling`: words for what was seen; empty when nothing was.
    """
    keys = dict.fromkeys(key for _, reading in samples for key in reading)
    readings, counters, seen, energy = {}, {}, set(), None
    for key in keys:
        kind, _, name = key.partition(".")
        values = np.array([reading[key] for _, reading in samples if key in reading])
        if kind in ("energy_j", "throttling_events"):
            counters[key] = float(np.maximum(np.diff(values), 0).sum())  # one that fell was set back by its driver
        elif kind == "throttling_bits":
            seen |= {f"{name}-{word}" for bit, word in _NVML_BITS.items() if any(int(value) & bit for value in values)}
        else:
            readings[key] = {"mean": float(values.mean()), "min": float(values.min()), "max": float(values.max())}
        if (kind == "throttling" and values.max() > 0) or (kind == "throttling_events" and counters[key] > 0):
            seen.add(name)
    total, parts = _total(keys)
    points = np.array([(at / 1e9, reading[total]) for at, reading in samples if total and total in reading])
    if len(points) > 1:
        energy = float((np.diff(points[:, 0]) * (points[1:, 1] + points[:-1, 1]) / 2).sum())
    return {
        "samples": len(samples),
        "seconds": (samples[-1][0] - samples[0][0]) / 1e9 if samples else 0.0,
        "readings": readings,
        "counters": counters,
        "energy_j": energy,
        "energy_per_frame_j": energy / frames if energy is not None and frames > 0 else None,
        "energy_of": " + ".join(parts) if energy is not None else None,
        "throttling": sorted(seen),
    }


def _total(keys: Iterable[str]) -> tuple[str | None, tuple[str, ...]]:
    """The key of the total power, and the names of what it is made of."""
    names = {key.partition(".")[2] for key in keys if key.startswith("power_w.")} - {"total"}
    parts = next((row for row in _WHOLE if names.issuperset(row)), ())
    if not parts and all(re.match(r"package-|psys|gpu$", name) for name in names):  # RAPL, NVML: apart from each other
        parts = tuple(sorted(name for name in names if re.fullmatch(r"package-\d+(\.dram)?|gpu", name)))
    return f"power_w.{parts[0] if len(parts) == 1 else 'total'}" if parts else None, parts


def _with_total(reading: dict[str, float], parts: tuple[str, ...]) -> dict[str, float]:
    keys = [f"power_w.{name}" for name in parts]
    if len(keys) > 1 and all(key in reading for key in keys):  # a sum of fewer would be a wrong figure, not a worse one
        reading["power_w.total"] = sum(reading[key] for key in keys)
    return reading


def _over(how: Callable[[list[float]], Any], readers: list[Reader]) -> float:
    return float(how([read() for read in readers]))


def _celsius(value: float) -> float:
    if value < -100:  # Jetson's -256: the unit is switched off
        raise ValueError("switched off")
    return value


def _nvml_value(nvml: Any, failed: int, function: str, arguments: tuple[Any, ...], kind: Any, scale: float) -> float:
    value = kind()
    if code := failed or getattr(nvml, function)(*arguments, ctypes.byref(value)):
        raise OSError(f"answers {'NotSupported' if code == 3 else f'error {code}'}")
    return float(value.value) * scale


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace").strip("\0\n ")
    return ""


__all__ = ["Sensors", "parse_tegrastats", "summarize"]
