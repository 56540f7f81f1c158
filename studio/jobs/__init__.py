"""Long-running work: what it reports, how it is cancelled, and how it ends."""

from studio.jobs.events import CancelToken, Emit, Event, Progress, TensorRanges, Warned, silent
from studio.jobs.job import Job, JobState

__all__ = [
    "CancelToken",
    "Emit",
    "Event",
    "Job",
    "JobState",
    "Progress",
    "TensorRanges",
    "Warned",
    "silent",
]
