"""Energy sources, windows and accounting: raw counters in, joules with a quality and an error bound out."""

from energy.activity import (
    ActivityEnergy,
    ActivityError,
    PowerModel,
    PowerTrace,
    TaskRecords,
    WorkerPower,
    activity_energy,
    power_model_for,
    power_trace,
)
from energy.alumet import AlumetChannel, AlumetError, AlumetRecording, ClockPair, import_recording
from energy.alumet_live import AlumetSource
from energy.counters import CounterEnergy, CounterTrack, Flag, Step, energy_between
from energy.gpu_identity import channel_of_gpu
from energy.hwmon import HwmonSource
from energy.nvml import NvmlSource
from energy.overlap import OutsideTotal
from energy.perf import PerfSource
from energy.pyrapl import PyRaplSource
from energy.rapl import RaplSource
from energy.replay import ReplaySource
from energy.sampler import LivePower, SamplerError
from energy.select import SOURCES, Absent, Present, Selection, availability, select_sources
from energy.session import ChannelEnergy, EnergySession, Window, WindowEnergy
from energy.source import (
    QUALITIES,
    Channel,
    Quality,
    ReadError,
    Reading,
    Source,
    SourceUnavailableError,
    weakest,
)
from energy.stream import PowerStream, StreamError, read_stream, to_parquet

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
    "Channel",
    "ChannelEnergy",
    "ClockPair",
    "CounterEnergy",
    "CounterTrack",
    "EnergySession",
    "Flag",
    "HwmonSource",
    "LivePower",
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
    "ReadError",
    "Reading",
    "ReplaySource",
    "SamplerError",
    "Selection",
    "Source",
    "SourceUnavailableError",
    "Step",
    "StreamError",
    "TaskRecords",
    "Window",
    "WindowEnergy",
    "WorkerPower",
    "activity_energy",
    "availability",
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
