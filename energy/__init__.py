"""Energy sources, windows and accounting: raw counters in, joules with a quality and an error bound out."""

from energy.activity import (
    ActivityEnergy,
    ActivityError,
    PowerModel,
    PowerTrace,
    TaskRecords,
    Transfers,
    WorkerPower,
    activity_energy,
    power_model_for,
    power_trace,
)
from energy.alumet import AlumetChannel, AlumetError, AlumetRecording, ClockPair, import_recording
from energy.alumet_live import AlumetSource
from energy.attribution import Attribution, AttributionError, ClassPower, MeterRecords, attribute, busy_share
from energy.baseline import Drift, IdleBaseline, IdleWatts
from energy.breakdown import Breakdown, break_down
from energy.counters import CounterEnergy, CounterTrack, Flag, Step, energy_between
from energy.gpu_identity import channel_of_gpu
from energy.hwmon import HwmonSource
from energy.live import LivePage
from energy.nvml import NvmlSource
from energy.overlap import OutsideTotal
from energy.perf import PerfSource
from energy.pyrapl import PyRaplSource
from energy.rapl import RaplSource
from energy.replay import ReplaySource
from energy.sampler import LivePower, RateHz, SamplerError, SamplingReport, Snapshot
from energy.select import SOURCES, Absent, Present, Selection, availability, select_sources
from energy.session import EnergySession
from energy.source import (
    QUALITIES,
    Channel,
    Quality,
    RawSource,
    ReadError,
    Reading,
    Source,
    SourceUnavailableError,
    weakest,
)
from energy.stream import PowerStream, StreamError, read_stream, to_parquet
from energy.window import ChannelEnergy, Window, WindowEnergy

__all__ = [
    "QUALITIES",
    "SOURCES",
    "Absent",
    "ActivityEnergy",
    "ActivityError",
    "AlumetChannel",
    "AlumetError",
    "AlumetRecording",
    "AlumetSource",
    "Attribution",
    "AttributionError",
    "Breakdown",
    "Channel",
    "ChannelEnergy",
    "ClassPower",
    "ClockPair",
    "CounterEnergy",
    "CounterTrack",
    "Drift",
    "EnergySession",
    "Flag",
    "HwmonSource",
    "IdleBaseline",
    "IdleWatts",
    "LivePage",
    "LivePower",
    "MeterRecords",
    "NvmlSource",
    "OutsideTotal",
    "PerfSource",
    "PowerModel",
    "PowerStream",
    "PowerTrace",
    "Present",
    "PyRaplSource",
    "Quality",
    "RaplSource",
    "RateHz",
    "RawSource",
    "ReadError",
    "Reading",
    "ReplaySource",
    "SamplerError",
    "SamplingReport",
    "Selection",
    "Snapshot",
    "Source",
    "SourceUnavailableError",
    "Step",
    "StreamError",
    "TaskRecords",
    "Transfers",
    "Window",
    "WindowEnergy",
    "WorkerPower",
    "activity_energy",
    "attribute",
    "availability",
    "break_down",
    "busy_share",
    "channel_of_gpu",
    "energy_between",
    "import_recording",
    "power_model_for",
    "power_trace",
    "read_stream",
    "select_sources",
    "to_parquet",
    "weakest",
]
