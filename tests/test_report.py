"""Reports of the vendor's tools: real ones, and others in the layouts of other releases."""

from __future__ import annotations

from pathlib import Path

import pytest

from kconvert.errors import ToolError
from kconvert.report import Reports, parse_reports, read
from tests.conftest import golden

# The layout of Vitis HLS: DSP for DSP48E, no URAM, a latency the tool could not tell; a FIFO table with a
# total of its own.
VITIS_CSYNTH = """
================================================================
== Vitis HLS Report for 'net'
================================================================
+ Timing:
    * Summary:
    +--------+---------+----------+------------+
    |  Clock |  Target | Estimated| Uncertainty|
    +--------+---------+----------+------------+
    |ap_clk  |  4.17 ns|  0.003 us|     1.13 ns|
    +--------+---------+----------+------------+

+ Latency:
    * Summary:
    +---------+---------+----------+----------+-----+-----+----------+
    |  Latency (cycles) |  Latency (absolute) |  Interval | Pipeline |
    |   min   |   max   |    min   |    max   | min | max |   Type   |
    +---------+---------+----------+----------+-----+-----+----------+
    |       12|        ?| 50.000 ns|         ?|    3|    ?| dataflow |
    +---------+---------+----------+----------+-----+-----+----------+

    + Detail:
        * Instance:
        +----------+--------+---------+---------+----------+----------+-----+-----+---------+
        |          |        |  Latency (cycles) |  Latency (absolute) |  Interval | Pipeline|
        | Instance | Module |   min   |   max   |    min   |    max   | min | max |   Type  |
        +----------+--------+---------+---------+----------+----------+-----+-----+---------+
        |dense_U0  |dense   |        7|        7| 35.000 ns| 35.000 ns|    7|    7|       no|
        +----------+--------+---------+---------+----------+----------+-----+-----+---------+

== Utilization Estimates
* FIFO:
    +---------+---------+----+----+------+-----+---------+
    |   Name  | BRAM_18K| FF | LUT| Depth| Bits| Size:D*B|
    +---------+---------+----+----+------+-----+---------+
    |layer_U  |        1|  38|   9|   169|   16|     2704|
    +---------+---------+----+----+------+-----+---------+
    |Total    |        1|  38|   9|   169|   16|     2704|
    +---------+---------+----+----+------+-----+---------+
* Summary:
+-----------------+------+---------+---------+---------+
|       Name      |  DSP | BRAM_18K|   LUT   |    FF   |
+-----------------+------+---------+---------+---------+
|Instance         |    21|        -|     4500|     1100|
+-----------------+------+---------+---------+---------+
|Total            |    21|        -|     4600|     1200|
+-----------------+------+---------+---------+---------+
|Available SLR    |  3072|     1344|   432000|   864000|
+-----------------+------+---------+---------+---------+
|Available        | 12288|     5376|  1728000|  3456000|
+-----------------+------+---------+---------+---------+
|Utilization (%)  |    ~0|        0|       ~0|       ~0|
+-----------------+------+---------+---------+---------+
"""

CSYNTH_XML = """<profile>
<UserAssignments><unit>ns</unit><TargetClockPeriod>5.00</TargetClockPeriod></UserAssignments>
<PerformanceEstimates>
<SummaryOfTimingAnalysis><EstimatedClockPeriod>3.612</EstimatedClockPeriod></SummaryOfTimingAnalysis>
<SummaryOfOverallLatency><Best-caseLatency>9</Best-caseLatency><Worst-caseLatency>undef</Worst-caseLatency>
<Interval-min>1</Interval-min><Interval-max>2</Interval-max></SummaryOfOverallLatency>
</PerformanceEstimates>
<AreaEstimates>
<Resources><BRAM_18K>4</BRAM_18K><DSP48E>33</DSP48E><FF>700</FF><LUT>900</LUT></Resources>
<AvailableResources><BRAM_18K>280</BRAM_18K><DSP48E>220</DSP48E><FF>106400</FF><LUT>53200</LUT></AvailableResources>
</AreaEstimates>
</profile>
"""

COSIM = """
+----------+----------+-----------------------------+-----------------------------+
|          |          |           Latency           |           Interval          |
+   RTL    +  Status  +-----------------------------+-----------------------------+
|          |          |   min   |   avg   |   max   |   min   |   avg   |   max   |
+----------+----------+-----------------------------+-----------------------------+
|      VHDL|        NA|       NA|       NA|       NA|       NA|       NA|       NA|
|   Verilog|      Pass|       11|     12.5|       14|        1|        2|        3|
+----------+----------+-----------------------------+-----------------------------+
"""

# A Series 7 device: slices, half a memory tile, no URAM, one more column.
VIVADO_SYNTH = """
+-----------------+------+-------+------------+-----------+-------+
|    Site Type    | Used | Fixed | Prohibited | Available | Util% |
+-----------------+------+-------+------------+-----------+-------+
| Slice LUTs*     | 1234 |     0 |          0 |     53200 |  2.32 |
|   LUT as Logic  | 1200 |     0 |          0 |     53200 |  2.26 |
| Slice Registers |  567 |     0 |          0 |    106400 |  0.53 |
+-----------------+------+-------+------------+-----------+-------+
+-----------------+------+-------+------------+-----------+-------+
|    Site Type    | Used | Fixed | Prohibited | Available | Util% |
+-----------------+------+-------+------------+-----------+-------+
| Block RAM Tile  |  1.5 |     0 |          0 |       140 |  1.07 |
| DSPs            |    8 |     0 |          0 |       220 |  3.64 |
+-----------------+------+-------+------------+-----------+-------+
"""


def put(project: Path, place: str, text: str) -> Path:
    path = project / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


CSYNTH_PLACE = "net_prj/solution1/syn/report/net_csynth.rpt"
COSIM_PLACE = "net_prj/solution1/sim/report/net_cosim.rpt"


def test_csynth_report_of_vivado_hls(tmp_path: Path) -> None:
    put(tmp_path, CSYNTH_PLACE, golden("reports/vivado_hls_csynth.rpt").read_text())
    assert parse_reports(tmp_path, "net") == {
        "CSynthesisReport": {
            "TargetClockPeriod": 5.0,
            "EstimatedClockPeriod": 4.363,
            "BestLatency": 1044,
            "WorstLatency": 1044,
            "IntervalMin": 1028,
            "IntervalMax": 1028,
            "BRAM_18K": 100,
            "DSP": 5414,
            "FF": 52549,
            "LUT": 245466,
            "URAM": 0,
            "AvailableBRAM_18K": 5376,
            "AvailableDSP": 12288,
            "AvailableFF": 3456000,
            "AvailableLUT": 1728000,
            "AvailableURAM": 1280,
        }
    }


def test_synthesis_report_of_vivado(tmp_path: Path) -> None:
    put(tmp_path, "vivado_synth.rpt", golden("reports/vivado_synth.rpt").read_text())
    assert parse_reports(tmp_path, "net") == {
        "VivadoSynthReport": {
            "LUT": 123948,
            "FF": 43435,
            "BRAM_18K": 84,
            "URAM": 0,
            "DSP": 5386,
            "AvailableLUT": 1728000,
            "AvailableFF": 3456000,
            "AvailableBRAM_18K": 5376,
            "AvailableURAM": 1280,
            "AvailableDSP": 12288,
        }
    }


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    put(tmp_path, CSYNTH_PLACE, VITIS_CSYNTH)
    report = parse_reports(tmp_path, "net")["CSynthesisReport"]
    assert report == {
        "TargetClockPeriod": 4.17,
        "EstimatedClockPeriod": pytest.approx(3.0),
        "BestLatency": 12,
        "IntervalMin": 3,
        "DSP": 21,
        "LUT": 4600,
        "FF": 1200,
        "AvailableDSP": 12288,
        "AvailableBRAM_18K": 5376,
        "AvailableLUT": 1728000,
        "AvailableFF": 3456000,
    }


def test_titles_without_units(tmp_path: Path) -> None:
    text = VITIS_CSYNTH.replace("4.17 ns|", "   4.17|").replace("Latency (cycles)", "    Latency     ")
    put(tmp_path, CSYNTH_PLACE, text)
    report = parse_reports(tmp_path, "net")["CSynthesisReport"]
    assert (report["TargetClockPeriod"], report["BestLatency"]) == (4.17, 12)


def test_xml_where_there_is_no_text(tmp_path: Path) -> None:
    put(tmp_path, "net_prj/solution1/syn/report/csynth.xml", CSYNTH_XML)
    assert parse_reports(tmp_path, "net")["CSynthesisReport"] == {
        "TargetClockPeriod": 5.0,
        "EstimatedClockPeriod": 3.612,
        "BestLatency": 9,
        "IntervalMin": 1,
        "IntervalMax": 2,
        "BRAM_18K": 4,
        "DSP": 33,
        "FF": 700,
        "LUT": 900,
        "AvailableBRAM_18K": 280,
        "AvailableDSP": 220,
        "AvailableFF": 106400,
        "AvailableLUT": 53200,
    }


def test_cosim_report(tmp_path: Path) -> None:
    put(tmp_path, COSIM_PLACE, COSIM)
    assert parse_reports(tmp_path, "net") == {
        "CosimReport": {
            "RTL": "Verilog",
            "Status": "Pass",
            "LatencyMin": 11,
            "LatencyAvg": 12.5,
            "LatencyMax": 14,
            "IntervalMin": 1,
            "IntervalAvg": 2,
            "IntervalMax": 3,
        }
    }


def test_synthesis_report_of_a_small_device(tmp_path: Path) -> None:
    put(tmp_path, "vivado_synth.rpt", VIVADO_SYNTH)
    report = parse_reports(tmp_path, "net")["VivadoSynthReport"]
    assert report == {
        "LUT": 1234,
        "FF": 567,
        "BRAM_18K": 3,
        "DSP": 8,
        "AvailableLUT": 53200,
        "AvailableFF": 106400,
        "AvailableBRAM_18K": 280,
        "AvailableDSP": 220,
    }


def test_no_reports(tmp_path: Path) -> None:
    assert parse_reports(tmp_path, "net") == {}


@pytest.mark.parametrize(
    ("place", "text", "sought"),
    [
        (CSYNTH_PLACE, "", "Target and Estimated"),
        (CSYNTH_PLACE, VITIS_CSYNTH[: VITIS_CSYNTH.index("+ Latency")], "Latency and Interval"),
        (CSYNTH_PLACE, VITIS_CSYNTH[: VITIS_CSYNTH.index("|Available  ")], "Total and Available"),
        (CSYNTH_PLACE, VITIS_CSYNTH.replace("4600", "46a0"), "46a0"),
        (CSYNTH_PLACE, VITIS_CSYNTH.replace("|       12|", "|    1 2|"), "1 2"),
        (CSYNTH_PLACE.replace("rpt", "xml"), CSYNTH_XML[:300], "well-formed XML"),
        (CSYNTH_PLACE.replace("rpt", "xml"), CSYNTH_XML.replace("Interval-min", "II"), "Interval-min"),
        (COSIM_PLACE, COSIM[: COSIM.index("|   Verilog")], "RTL, Status"),
        ("vivado_synth.rpt", VIVADO_SYNTH[: VIVADO_SYNTH.index("| Slice Reg")], "Registers"),
    ],
)
def test_unreadable_report(tmp_path: Path, place: str, text: str, sought: str) -> None:
    path = put(tmp_path, place, text)
    with pytest.raises(ToolError, match=sought) as caught:
        parse_reports(tmp_path, "net")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("place", "text"), [(CSYNTH_PLACE, VITIS_CSYNTH), (COSIM_PLACE, COSIM), ("vivado_synth.rpt", VIVADO_SYNTH)]
)
def test_a_report_cut_off_anywhere_says_all_or_nothing(tmp_path: Path, place: str, text: str) -> None:
    """A cut right behind a cell leaves a row that looks whole."""
    path = put(tmp_path, place, text)
    whole = read(path)
    for end in (i for i, c in enumerate(text, 1) if c in "|+\n"):
        path.write_text(text[:end])
        try:
            assert read(path) == whole
        except ToolError as error:
            assert str(path) in str(error)  # noqa: PT017 - either is right


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert read(put(tmp_path, "saved.txt", "\ufeff" + CSYNTH_XML))["CSynthesisReport"]["DSP"] == 33


# ---- finding them ----

# The summary of a design, as newer releases write it beside the report of every function: one row for a module, the
# share of the device behind a number, one latency and interval.
SUMMARY = """
================================================================
== Synthesis Summary Report of 'net'
================================================================
+ Performance & Resource Estimates:

    PS: '+' for module; 'o' for loop; '*' for dataflow
    +------------+------+---------+--------+---------+----------+------+----------+-----------+-----------+-----+
    |   Modules  | Issue| Latency | Latency|         |          |      |          |           |           |     |
    |   & Loops  | Type | (cycles)|  (ns)  | Interval| Pipelined| BRAM |    DSP   |     FF    |    LUT    | URAM|
    +------------+------+---------+--------+---------+----------+------+----------+-----------+-----------+-----+
    |+ net       |     -|       11|  55.000|        2|       yes|     -|  21 (~0%)|  1200 (1%)| 4600 (12%)|    -|
    | + dense    |     -|        4|  20.000|        1|       yes|     -|  12 (~0%)|   700 (1%)|  2100 (5%)|    -|
    +------------+------+---------+--------+---------+----------+------+----------+-----------+-----------+-----+
"""


def test_summary_of_a_design(tmp_path: Path) -> None:
    put(tmp_path, "net_prj/solution1/syn/report/csynth.rpt", SUMMARY)
    assert read(tmp_path)["CSynthesisReport"] == {
        "BestLatency": 11,
        "WorstLatency": 11,
        "IntervalMin": 2,
        "IntervalMax": 2,
        "DSP": 21,
        "FF": 1200,
        "LUT": 4600,
    }


@pytest.mark.parametrize("place", ["", "net_prj", "net_prj/solution1", "net_prj/solution1/syn/report"])
def test_any_folder_on_the_way_will_do(tmp_path: Path, place: str) -> None:
    put(tmp_path, CSYNTH_PLACE, VITIS_CSYNTH)
    found = read(tmp_path / place)
    assert found.csynthesis is not None
    assert found.csynthesis["LUT"] == 4600
    assert found.cosim is None
    assert list(found.missing) == ["CosimReport", "VivadoSynthReport"]


@pytest.mark.parametrize(
    ("text", "key"), [(VITIS_CSYNTH, "CSynthesisReport"), (COSIM, "CosimReport"), (VIVADO_SYNTH, "VivadoSynthReport")]
)
def test_one_report(tmp_path: Path, text: str, key: str) -> None:
    assert list(read(put(tmp_path, "any name.txt", text))) == [key]


def test_one_report_as_xml(tmp_path: Path) -> None:
    assert read(put(tmp_path, "net.xml", CSYNTH_XML))["CSynthesisReport"]["DSP"] == 33


def test_the_top_function_is_found_among_others(tmp_path: Path) -> None:
    """The tools write a report for every function that was not inlined."""
    inner = CSYNTH_PLACE.replace("net_csynth", "dense_csynth")
    put(tmp_path, inner, VITIS_CSYNTH.replace("4600", "17"))
    put(tmp_path, CSYNTH_PLACE, VITIS_CSYNTH)
    assert read(tmp_path)["CSynthesisReport"]["LUT"] == 4600
    assert read(tmp_path, "net")["CSynthesisReport"]["LUT"] == 4600
    folder = (tmp_path / CSYNTH_PLACE).parent
    with pytest.raises(ToolError, match=r"2 files \*_csynth\.rpt.*give project_name"):
        read(folder)
    assert read(folder, "dense")["CSynthesisReport"]["LUT"] == 17
    top = CSYNTH_XML.replace("<UserAssignments>", "<UserAssignments><TopModelName>dense</TopModelName>")
    put(folder, "csynth.xml", top)
    assert read(folder)["CSynthesisReport"]["LUT"] == 17


def test_several_solutions(tmp_path: Path) -> None:
    put(tmp_path, CSYNTH_PLACE, VITIS_CSYNTH)
    other = put(tmp_path, CSYNTH_PLACE.replace("solution1", "solution2"), VITIS_CSYNTH.replace("4600", "17"))
    with pytest.raises(ToolError, match=r"several solutions.*solution1.*solution2"):
        read(tmp_path)
    assert read(other.parents[2])["CSynthesisReport"]["LUT"] == 17


def test_real_reports_side_by_side() -> None:
    found = read(golden("reports"))
    assert found.csynthesis is not None
    assert found.csynthesis["BestLatency"] == 1044
    assert found.vivado_synth is not None
    assert found.vivado_synth["AvailableLUT"] == found.csynthesis["AvailableLUT"]


def test_missing_reports_are_named(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"holds no report.*csynth.*cosim.*vivado_synth\.rpt"):
        read(tmp_path)
    with pytest.raises(ToolError, match="no folder"):
        read(tmp_path / "nowhere")
    put(tmp_path, COSIM_PLACE, COSIM)
    text = str(read(tmp_path))
    assert "C synthesis: no report (*_csynth.rpt or csynth.xml in " in text
    assert "Logic synthesis: no report" in text


@pytest.mark.parametrize("row", ["| Block RAM Tile", "| DSPs"])
def test_logic_synthesis_that_was_cut_off_is_named(tmp_path: Path, row: str) -> None:
    path = put(tmp_path, "vivado_synth.rpt", VIVADO_SYNTH[: VIVADO_SYNTH.index(row)])
    with pytest.raises(ToolError, match=row.strip("| ")) as caught:
        read(tmp_path)
    assert str(path) in str(caught.value)


# ---- showing them ----


def test_table(tmp_path: Path) -> None:
    put(tmp_path, CSYNTH_PLACE, VITIS_CSYNTH)
    put(tmp_path, COSIM_PLACE, COSIM)
    put(tmp_path, "vivado_synth.rpt", VIVADO_SYNTH)
    found = read(tmp_path)
    rows = {(report, quantity): rest for report, quantity, *rest in found.rows()}
    assert rows["C synthesis", "LUT"] == [4600, 1728000, "0.3 %"]
    assert rows["C synthesis", "best latency [cycles]"] == [12, None, ""]
    assert rows["C synthesis", "target clock period [ns]"] == [4.17, None, ""]
    assert rows["RTL simulation", "latency avg [cycles]"] == [12.5, None, ""]
    assert rows["Logic synthesis", "DSP"] == [8, 220, "3.6 %"]
    assert len(str(found).splitlines()) == len(rows) + 2
    assert found._repr_html_().count("<tr>") == len(rows) + 1


def test_texts_of_a_report_are_no_markup() -> None:
    found = Reports({"CosimReport": {"RTL": "<script>", "Status": "Pass"}}, {"VivadoSynthReport": "<b>"})
    shown = found._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "<b>" not in shown
