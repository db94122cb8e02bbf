"""The vendor's tools, played by small shell scripts."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jinja2
import pytest

from kconvert import vendor
from kconvert.errors import ConfigError, ToolError, WriteError
from tests.conftest import ROOT
from tests.test_report import CSYNTH_PLACE, VITIS_CSYNTH, put

TEMPLATES = ROOT / "kconvert" / "templates" / "project"

# ---- running the tools ----


class Tools:
    """A project, and a folder of fake executables in front of PATH."""

    def __init__(self, base: Path) -> None:
        self.bin = base / "bin"
        self.bin.mkdir()
        self.project = base / "a project"
        put(self.project, "build_prj.tcl", "")

    def add(self, name: str, script: str) -> None:
        path = put(self.bin, name, f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    tools = Tools(tmp_path)
    # The system's folders stay: the scripts need cat and sleep. They hold no vendor's tool.
    monkeypatch.setenv("PATH", f"{tools.bin}:/usr/bin:/bin")
    for name in ("vitis-run", "vitis_hls", "vivado_hls", "vivado"):
        if shutil.which(name):
            pytest.skip(f"a real {name} is installed among the system's programs")
    return tools


# Says where and how it was called, and leaves a report.
LEAVE_REPORT = f"""
echo "in $(pwd)"
for word in "$@"; do echo "word <$word>"; done
mkdir -p net_prj/solution1/syn/report
cat > {CSYNTH_PLACE} <<'END'
{VITIS_CSYNTH}
END
"""


def test_build_passes_options_and_returns_reports(
    tools: Tools, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    tools.add("vitis_hls", LEAVE_REPORT)
    with caplog.at_level(logging.INFO, "kconvert.vendor"):
        reports = vendor.build(tools.project, "net", "Vitis", csim=True, reset=True)
    assert reports["CSynthesisReport"]["DSP"] == 21
    lines = [
        f"in {tools.project}",
        "word <-f>",
        "word <build_prj.tcl>",
        "word <reset=1 csim=1 synth=1 cosim=0 validation=0 export=0 vsynth=0>",
    ]
    assert capsys.readouterr().out.splitlines() == lines
    assert [record.getMessage() for record in caplog.records][-len(lines) :] == lines


def test_vivado_uses_vivado_hls(tools: Tools) -> None:
    tools.add("vivado_hls", LEAVE_REPORT)
    assert vendor.build(tools.project, "net", "Vivado")["CSynthesisReport"]["FF"] == 1200


def test_vitis_run_is_preferred_and_reads_options_from_a_file(tools: Tools, capsys: pytest.CaptureFixture[str]) -> None:
    tools.add("vitis-run", 'echo "$@"; cat build_opt.tcl')
    tools.add("vitis_hls", "exit 1")
    assert vendor.build(tools.project, "net", "Vitis", synth=False, cosim=True) == {}
    assert capsys.readouterr().out.splitlines() == [
        "--mode hls --tcl build_prj.tcl",
        "array set opt {reset 0 csim 0 synth 0 cosim 1 validation 0 export 0 vsynth 0}",
    ]


def test_options_that_cannot_be_written(tools: Tools) -> None:
    tools.add("vitis-run", "exit 0")
    (tools.project / "build_opt.tcl").mkdir()
    with pytest.raises(WriteError, match=r"build_opt\.tcl"):
        vendor.build(tools.project, "net", "Vitis")


def test_log_arrives_line_by_line(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.add("vivado_hls", "echo first; while [ ! -e go ]; do sleep 0.01; done; echo second")
    seen: list[str] = []

    def write(text: str) -> int:
        seen.append(text)
        (tools.project / "go").touch()  # the tool goes on only once its first line has been seen
        return len(text)

    monkeypatch.setattr(sys.stdout, "write", write)
    vendor.build(tools.project, "net", "Vivado")
    assert seen == ["first\n", "second\n"]


@pytest.mark.parametrize(("backend", "names"), [("Vitis", ["vitis-run", "vitis_hls"]), ("Vivado", ["vivado_hls"])])
def test_missing_executable_is_named(tools: Tools, backend: str, names: list[str]) -> None:
    with pytest.raises(ToolError, match=r"settings64\.sh") as caught:
        vendor.build(tools.project, "net", backend)
    assert all(name in str(caught.value) for name in names)


def test_missing_vivado_is_found_before_the_long_run(tools: Tools) -> None:
    tools.add("vitis_hls", "touch started")
    with pytest.raises(ToolError, match="vivado is not on PATH"):
        vendor.build(tools.project, "net", "Vitis", vsynth=True)
    assert not (tools.project / "started").exists()


def test_unknown_backend(tools: Tools) -> None:
    with pytest.raises(ConfigError, match="did you mean 'Vitis'"):
        vendor.build(tools.project, "net", "vitis")


def test_project_that_was_not_written(tools: Tools, tmp_path: Path) -> None:
    tools.add("vitis_hls", "exit 0")
    with pytest.raises(ToolError, match="write the project first"):
        vendor.build(tmp_path / "nowhere", "net", "Vitis")


def test_failure_shows_the_end_of_the_log(tools: Tools) -> None:
    tools.add("vitis_hls", "echo 'ERROR: [HLS 1] top not found' >&2; seq 1000 1099; exit 3")
    with pytest.raises(ToolError, match="vitis_hls ended with exit status 3") as caught:
        vendor.build(tools.project, "net", "Vitis")
    message = str(caught.value)
    assert "ERROR: [HLS 1] top not found" in message
    assert message.endswith("1098\n1099")
    assert "1050" not in message


def test_error_line_is_a_failure_even_with_status_zero(tools: Tools) -> None:
    tools.add("vivado_hls", "echo 'ERROR: [COSIM 2] mismatch'; exit 0")
    with pytest.raises(ToolError, match=r"reported errors(.|\n)*mismatch"):
        vendor.build(tools.project, "net", "Vivado")


def test_the_word_error_elsewhere_is_none(tools: Tools) -> None:
    tools.add("vivado_hls", "echo 'INFO: 0 errors; ERROR: none'; echo error")
    assert vendor.build(tools.project, "net", "Vivado") == {}


def test_executable_that_does_not_start(tools: Tools) -> None:
    put(tools.bin, "vivado_hls", "#!/no/such/interpreter\n").chmod(0o755)
    with pytest.raises(ToolError, match=r"cannot start .*vivado_hls"):
        vendor.build(tools.project, "net", "Vivado")


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_interrupt_ends_the_tool_and_what_it_started(tools: Tools, request: pytest.FixtureRequest) -> None:
    # what a shell starts in the background ignores interrupts, and so would this test
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    tools.add("vivado_hls", "sleep 60 & echo $! > child; echo $$ > parent; echo started; wait")

    def interrupt() -> None:
        while not (tools.project / "parent").exists():
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        vendor.build(tools.project, "net", "Vivado")
    thread.join()
    pids = [int((tools.project / name).read_text()) for name in ("parent", "child")]
    deadline = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(alive, pids))


# ---- the scripts ----

HOSTILE = 'a"b[exec touch owned]$env(HOME)\\{;}\n#é'

# Stands in for the HLS tool: says what was called, then runs the script with the arguments given.
STUBS = """
proc say {name args} { puts "call [list $name {*}$args]" }
foreach name {open_project set_top add_files open_solution set_part create_clock set_clock_uncertainty
        config_array_partition csim_design csynth_design cosim_design export_design synth_design
        report_utilization} {
    interp alias {} $name {} say $name
}
set script [lindex $argv 0]
set argv [lrange $argv 1 end]
source $script
"""


def render(
    project: Path,
    name: str,
    *,
    backend: str = "Vitis",
    environment: jinja2.Environment | None = None,
    **values: object,
) -> Path:
    environment = environment or jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    template = environment.from_string((TEMPLATES / f"{name}.j2").read_text())
    variables = {
        "project_name": "net",
        "backend": backend,
        "part": "xcvu13p-flga2577-2-e",
        "clock_period": 5.0,
        "clock_uncertainty": "27%",
    }
    return put(project, name, template.render(variables | values))


def run_tcl(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script under stub procs, from another folder than its own."""
    tclsh = shutil.which("tclsh")
    if tclsh is None:
        pytest.skip("tclsh is not installed")
    stubs = put(script.parent.parent, "stubs.tcl", STUBS)
    return subprocess.run(
        [tclsh, stubs, script, *arguments],
        cwd=script.parent.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def calls(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert result.returncode == 0, result.stdout + result.stderr
    return [line.removeprefix("call ") for line in result.stdout.splitlines() if line.startswith("call ")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path / "project"


def test_script_prepares_the_project(project: Path) -> None:
    put(project, "tb/tb_data/inputs.dat", "")
    put(project, "firmware/weights/w2.txt", "")
    script = render(project, "build_prj.tcl")
    assert calls(run_tcl(script, "-f", "build_prj.tcl", "reset=1 synth=0")) == [
        "open_project -reset net_prj",
        "set_top net",
        "add_files firmware/net.cpp -cflags -std=c++14",
        "add_files -tb tb/net_test.cpp -cflags -std=c++14",
        "add_files -tb tb/tb_data",
        "add_files -tb firmware/weights",
        "open_solution -reset solution1",
        "set_part xcvu13p-flga2577-2-e",
        "create_clock -period 5.0 -name default",
        "set_clock_uncertainty 27% default",
    ]


def test_script_for_vivado(project: Path) -> None:
    script = render(project, "build_prj.tcl", backend="Vivado", clock_uncertainty="12.5%")
    done = calls(run_tcl(script))
    assert "open_project net_prj" in done
    assert "add_files firmware/net.cpp -cflags -std=c++0x" in done
    assert "config_array_partition -maximum_size 4096" in done
    assert "set_clock_uncertainty 12.5% default" in done
    assert done[-1] == "csynth_design"


def test_script_runs_what_it_is_asked_for(project: Path) -> None:
    script = render(project, "build_prj.tcl")
    assert calls(run_tcl(script, "csim=1 synth=1", "cosim=1 export=1"))[-5:] == [
        "csim_design",
        "csynth_design",
        "add_files -tb tb/net_test.cpp -cflags {-std=c++14 -DRTL_SIM}",
        "cosim_design",
        "export_design -format ip_catalog",
    ]


def test_script_reads_the_file_only_without_arguments(project: Path) -> None:
    script = render(project, "build_prj.tcl")
    put(project, "build_opt.tcl", "array set opt {csim 1 synth 0}\n")
    assert calls(run_tcl(script))[-1] == "csim_design"
    assert calls(run_tcl(script, "export=1"))[-2:] == ["csynth_design", "export_design -format ip_catalog"]


def test_script_takes_the_options_of_build(tools: Tools) -> None:
    script = render(tools.project, "build_prj.tcl")
    if shutil.which("tclsh") is None:
        pytest.skip("tclsh is not installed")
    stubs = put(tools.bin, "stubs.tcl", STUBS)
    tools.add("vitis-run", f"exec tclsh '{stubs}' {script.name}")
    vendor.build(tools.project, "net", "Vitis", synth=False, export=True)
    with pytest.raises(ToolError, match="no csim_results"):
        vendor.build(tools.project, "net", "Vitis", validation=True)


@pytest.mark.parametrize("option", ["cosymulate=1", "csim=yes"])
def test_script_refuses_a_wrong_option(project: Path, option: str) -> None:
    result = run_tcl(render(project, "build_prj.tcl"), option)
    assert result.returncode == 1
    assert result.stdout.startswith("ERROR: ")
    assert option.split("=")[0] in result.stdout


def test_script_ends_with_an_error_when_a_step_fails(project: Path) -> None:
    script = render(project, "build_prj.tcl")
    script.write_text("proc csynth_design {} { error {no top function} }\n" + script.read_text())
    result = run_tcl(script, "export=1")
    assert result.returncode == 1
    assert "ERROR: no top function" in result.stdout
    assert "export_design" not in result.stdout


def test_script_compares_simulation_and_rtl(project: Path) -> None:
    script = render(project, "build_prj.tcl")
    put(project, "tb/tb_data/csim_results.log", "1 2.5\n3\n")
    put(project, "net_prj/solution1/sim/wrapc_pc/tb_data/rtl_cosim_results.log", "1 2.5 3\n")
    assert calls(run_tcl(script, "synth=0 validation=1"))[-1] == "set_clock_uncertainty 27% default"
    put(project, "net_prj/solution1/sim/wrapc_pc/tb_data/rtl_cosim_results.log", "1 2.5 4\n")
    result = run_tcl(script, "validation=1")
    assert result.returncode == 1
    assert "rtl_cosim_results.log differ" in result.stdout


def test_script_starts_vivado(tools: Tools) -> None:
    tools.add("vivado", 'echo "vivado $*"; echo warning >&2')
    result = run_tcl(render(tools.project, "build_prj.tcl"), "synth=0 vsynth=1")
    assert result.returncode == 0, result.stdout
    assert "vivado -mode batch -nojournal -source vivado_synth.tcl" in result.stdout.splitlines()
    tools.add("vivado", "exit 1")
    assert run_tcl(tools.project / "build_prj.tcl", "synth=0 vsynth=1").returncode == 1


def test_vivado_script(project: Path) -> None:
    script = render(project, "vivado_synth.tcl")
    assert run_tcl(script).stdout.startswith("ERROR: no Verilog")
    put(project, "net_prj/solution1/syn/verilog/net.v", "")
    assert calls(run_tcl(script)) == [
        "add_files net_prj/solution1/syn/verilog",
        "synth_design -top net -part xcvu13p-flga2577-2-e -mode out_of_context",
        "report_utilization -file vivado_synth.rpt",
    ]


@pytest.mark.parametrize("name", ["build_prj.tcl", "vivado_synth.tcl"])
def test_values_are_quoted(project: Path, name: str) -> None:
    script = render(project, name, part=HOSTILE, clock_period=HOSTILE, clock_uncertainty=HOSTILE)
    names = ["part"] if name == "vivado_synth.tcl" else ["part", "clock_period", "clock_uncertainty"]
    # Instead of exiting, hand back the values as code points, free of any quoting.
    shows = "".join(f"puts [lmap c [split ${variable} {{}}] {{scan $c %c}}]\n" for variable in names)
    script.write_text(script.read_text().replace("if {[catch run message]}", f"{shows}exit\nif 0"))
    result = run_tcl(script)
    expected = " ".join(str(ord(c)) for c in HOSTILE)
    assert result.stdout.splitlines() == [expected] * len(names), result.stderr
    assert not (project / "owned").exists()


def test_scripts_do_not_depend_on_how_jinja_trims_blocks(project: Path) -> None:
    trimming = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    for name in ("build_prj.tcl", "vivado_synth.tcl"):
        plain = render(project, name).read_text()
        assert render(project, name, environment=trimming).read_text() == plain
