"""Devices side by side: only where there are any, one line a network, and what was hot is marked."""

from grid.report.devices.section import devices, network_name
from grid.report.inputs import ReportInputs
from grid.report.report import write_report
from tests.grid.report.report_rows import context, grid_rows, row

FIGURES = {
    "latency_ms_p50": 90.0,
    "latency_ratio": 0.6,
    "engine_ratio": 0.5,
    "engine_ratio_low": 0.4,
    "engine_ratio_high": 0.6,
}
THERE = {
    "timed_beside": "onnxruntime float",
    "device_levels_max": 1.0,
    "device_memory_mb": 20.5,
    "cpu_model": "pi: A76",
}


def rows_there():
    """A network here and on two devices, on one of which it was hot."""
    common = {"fuse_bn": True, "granularity": "per_channel", "method": "ptq", "test_ssim": 0.9, "graph_hash": "b" * 16}
    return [
        *grid_rows(),
        row("onnx-ptq", **common, **FIGURES, device="local", cpu_model="Xeon"),
        row("onnx-ptq-device=pi", **common, **FIGURES, **THERE, device="pi", throttled=None),
        row("onnx-ptq-device=phone", **common, **FIGURES, **THERE, device="phone", throttled="it stayed at 80 degrees"),
    ]


def test_a_grid_of_this_machine_alone_has_no_such_section():
    assert devices(ReportInputs(grid_rows(), context())) is None


def test_a_network_has_one_line_with_the_figures_of_all_devices(tmp_path):
    text, _ = write_report(tmp_path, ReportInputs(rows_there(), context()))
    section = text.read_text().partition("## Devices")[2].partition("\n## ")[0]
    (line,) = [line for line in section.splitlines() if line.startswith("| `onnx-ptq` ")]
    assert line.count("90.00") == 3
    assert "it stayed at 80 degrees" in section
    assert (tmp_path / "devices.png").stat().st_size > 10_000


def test_the_name_of_a_network_leaves_out_its_device_wherever_it_stands():
    assert network_name({"cell": "ptq-device=my-pi-engine=litert", "device": "my-pi"}) == "ptq-engine=litert"
