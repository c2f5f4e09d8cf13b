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
from energy.attribution import Attribution, AttributionError, ClassPower, MeterRecords, attribute, busy_share
from energy.baseline import Drift, IdleBaseline, IdleWatts
from energy.breakdown import Breakdown, break_down
from energy.counters import CounterEnergy, CounterTrack, Flag, Step, energy_between
from energy.nvml import NvmlSource
from energy.rapl import RaplSource
from energy.sampler import LivePower, SamplerError, Snapshot
from energy.select import SOURCES, Absent, Present, Selection, availability, select_sources
from energy.session import EnergySession
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
from energy.window import ChannelEnergy, Window, WindowEnergy

__all__ = [
    "QUALITIES",
    "SOURCES",
    "Absent",
    "ActivityEnergy",
    "ActivityError",
    "Attribution",
    "AttributionError",
    "Breakdown",
    "Channel",
    "ChannelEnergy",
    "ClassPower",
    "CounterEnergy",
    "CounterTrack",
    "Drift",
    "EnergySession",
    "Flag",
    "IdleBaseline",
    "IdleWatts",
    "LivePower",
    "MeterRecords",
    "NvmlSource",
    "PowerModel",
    "PowerStream",
    "PowerTrace",
    "Present",
    "Quality",
    "RaplSource",
    "ReadError",
    "Reading",
    "SamplerError",
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
    "energy_between",
    "power_model_for",
    "power_trace",
    "read_stream",
    "select_sources",
    "to_parquet",
    "weakest",
]
