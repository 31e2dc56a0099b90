"""Durations and sizes written for people."""


def duration(seconds: float) -> str:
    """Return seconds in the unit that people would choose: `48 s`, `12 min`, `3 h 20 min`.

    Args:
        seconds: >= 0.
    """
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def data_size(num_bytes: int) -> str:
    """Return a number of bytes as text, such as `3.2 GiB`."""
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"
